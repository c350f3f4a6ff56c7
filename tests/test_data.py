"""The course's own data: what is bundled, its builders, and all of CIFAR-10 where it is at hand."""

import csv
import datetime
import hashlib
import io
import json
import os
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labkit import data, fetch

import numpy as np
import pandas
import PIL.Image
import pytest

ROOT = Path(data.__file__).parent.parent
MIRROR = Path(os.environ.get("LABS_MIRROR", ROOT.parent / "shared" / "data"))
CIFAR_BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty home, no mirror, and an error for whoever opens a connection."""

    def refuse(*_args):
        raise AssertionError("this must work without network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABS_MIRROR", raising=False)


@pytest.fixture(scope="module")
def labels():
    """Return the labels of the whole CIFAR-10 training set, if it is in the cache."""
    folder = data.home() / "cache" / "cifar10"
    if not all((folder / batch).exists() for batch in CIFAR_BATCHES):
        pytest.skip("CIFAR-10 is not in the cache (python -m labkit.data fetch cifar10)")
    records = [np.fromfile(data.path("cifar10", batch), np.uint8) for batch in CIFAR_BATCHES]
    return np.concatenate(records).reshape(-1, 3073)[:, 0]


def test_what_is_bundled_is_small_verified_and_complete(offline):
    names = {folder.name for folder in (data.DATASETS / "bundled").iterdir()}
    assert names >= {"king_county", "cifar10_sample"}
    for name in names:
        files = data.dataset(name)["files"]
        bundled = [data.path(name, file) for file in files]
        assert {place.name for place in bundled[0].parent.iterdir()} == set(files)
    assert sum(facts["bytes"] for facts in data.dataset("cifar10_sample")["files"].values()) < 5e6


def test_every_data_set_has_a_card():
    cards = (data.DATASETS / "README.md").read_text(encoding="utf-8")
    for name in data.manifest(data.DATASETS / "manifest.toml"):
        assert f"\n## {name}\n" in cards


def test_king_county_is_whole(offline):
    houses = data.table("king_county")
    assert houses.shape == (21613, 21)
    assert houses["waterfront"].dtype == bool
    assert houses["date"].min() == datetime.date(2014, 5, 2)
    assert not houses.isna().any(axis=None)


def test_king_county_equals_the_original_table(offline):
    original_file = MIRROR / "king_county" / "kc_house_data.csv"
    if not original_file.exists():
        pytest.skip("no mirror with the original CSV")
    houses, original = data.table("king_county"), pandas.read_csv(original_file)
    assert list(houses) == list(original)
    dates = pandas.to_datetime(original.pop("date"), format="%Y%m%dT%H%M%S")
    assert (pandas.to_datetime(houses.pop("date")) == dates).all()
    assert (houses.astype(float) == original.astype(float)).all(axis=None)


def test_tables_of_both_kinds(offline, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "path", lambda name, file: tmp_path / file)
    table = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    for file in ("t.csv", "t.parquet"):
        pandas.testing.assert_frame_equal(data.table("toy", file), table)


def test_several_files_must_be_named():
    with pytest.raises(data.DataError, match=r"which file of cifar10_sample.*train\.webp"):
        data.path("cifar10_sample")
    with pytest.raises(data.DataError, match=r"no data set 'cifar'; known are .*cifar10"):
        data.path("cifar")
    with pytest.raises(data.DataError, match=r"use data\.table"):
        data.tfds_dir("king_county")


def test_the_sample_loads_without_network(offline):
    import tensorflow_datasets as tfds

    folder = data.tfds_dir("cifar10_sample")
    started = time.monotonic()
    assert data.tfds_dir("cifar10_sample") == folder
    assert time.monotonic() - started < 1
    assert {key.split("/")[0] for key in data.used()} >= {"cifar10_sample"}
    splits, info = tfds.load(
        "cifar10_sample", split=["train", "test"], data_dir=folder, with_info=True
    )
    assert info.features["label"].names == _code("CLASSES")
    for split, count in zip(splits, [240, 50], strict=True):
        images = list(tfds.as_numpy(split))
        assert np.bincount([image["label"] for image in images]).tolist() == [count] * 10
        assert len({image["id"] for image in images}) == 10 * count
        assert {image["image"].shape for image in images} == {(32, 32, 3)}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_sample_is_a_part_of_cifar10(labels, split):
    batches = CIFAR_BATCHES if split == "train" else ["test_batch.bin"]
    records = np.concatenate([np.fromfile(data.path("cifar10", b), np.uint8) for b in batches])
    records = records.reshape(-1, 3073)
    sample = _code("Cifar10Sample").__new__(_code("Cifar10Sample"))
    sample.files = {file: data.path("cifar10_sample", file) for file in _sample_files()}
    for index, example in sample._sheet(split):
        planes = records[index, 1:].reshape(3, 32, 32)
        assert records[index, 0] == example["label"]
        assert (planes.transpose(1, 2, 0) == example["image"]).all()


def _code(name: str):
    return data._code(f"cifar10:{name}")


def _sample_files() -> list[str]:
    return list(data.dataset("cifar10_sample")["files"])


def test_the_official_files_are_rebuilt_from_pictures():
    random = np.random.default_rng(0)
    images, known = random.integers(0, 256, (20, 32, 32, 3), np.uint8), random.integers(0, 10, 20)
    pages = {"package/train_lables.json": json.dumps(known.tolist()).encode()}
    for number in (1, 2):
        buffer = io.BytesIO()
        picture = images[10 * number - 10 : 10 * number].reshape(10, 1024, 3)
        PIL.Image.fromarray(picture).save(buffer, "png")
        pages[f"package/data_batch_{number}.png"] = buffer.getvalue()
    content = _code("rebuild")(pages.get, "package/data_batch_2.png")
    records = np.frombuffer(content, np.uint8).reshape(10, 3073)
    assert (records[:, 0] == known[10:]).all()
    planes = records[:, 1:].reshape(10, 3, 32, 32)
    assert (planes.transpose(0, 2, 3, 1) == images[10:]).all()


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch):
    """A course whose `cifar10` has 10 random images a file; return the datasets folder."""
    random, facts = np.random.default_rng(0), []
    folder = tmp_path / "datasets"
    (folder / "bundled" / "cifar10").mkdir(parents=True)
    shutil.copy(data.DATASETS / "cifar10.py", folder)
    for file in [*CIFAR_BATCHES, "test_batch.bin"]:
        records = random.integers(0, 256, (10, 3073), np.uint8)
        records[:, 0] = np.arange(10)
        place = folder / "bundled" / "cifar10" / file
        place.write_bytes(content := records.tobytes())
        sha256 = hashlib.sha256(content).hexdigest()
        facts.append(f'"{file}" = {{ bytes = {len(content)}, sha256 = "{sha256}" }}')
    text = '[cifar10]\nlicence = ""\ncitation = ""\nbuilder = "cifar10:Cifar10"\n[cifar10.files]\n'
    (folder / "manifest.toml").write_text(text + "\n".join(facts), encoding="utf-8")
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(data, "DATASETS", folder)
    return folder


def test_cifar10_is_prepared_as_the_official_builder_does(small_cifar10):
    import tensorflow_datasets as tfds

    folder = data.tfds_dir("cifar10")
    examples, info = tfds.load("cifar10", split="train", data_dir=folder, with_info=True)
    official = tfds.builder("cifar10", data_dir=folder.parent / "empty")
    assert info.version == official.version == "3.0.2"
    assert info.features.keys() == official.info.features.keys() == {"id", "image", "label"}
    assert info.splits["train"].num_shards == info.splits["test"].num_shards == 1
    order = _official_order(50)
    assert [example["id"] for example in tfds.as_numpy(examples)] == [
        f"train_{index:05d}".encode() for index in order
    ]
    first = next(iter(tfds.as_numpy(examples)))
    batch, row = divmod(order[0], 10)
    records = np.fromfile(data.path("cifar10", CIFAR_BATCHES[batch]), np.uint8).reshape(10, 3073)
    assert (first["image"] == records[row, 1:].reshape(3, 32, 32).transpose(1, 2, 0)).all()


def _official_order(count: int) -> list[int]:
    """Return the order of a TensorFlow data set's training examples: by MD5 of split and key."""
    return sorted(range(count), key=lambda key: hashlib.md5(f"train{key}".encode()).digest())


def test_preparing_is_all_or_nothing(small_cifar10, monkeypatch):
    def disk_full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_code("Cifar10"), "_generate_examples", disk_full)
        with pytest.raises(data.DataError, match=r"cannot be prepared.*No space left"):
            data.tfds_dir("cifar10")
        assert [file.name for file in (data.home() / "tfds").iterdir()] == [".lock"]
    assert data.tfds_dir("cifar10").exists()


def test_a_changed_byte_of_prepared_data_is_an_error(small_cifar10):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = data.tfds_dir("cifar10")
    (shard,) = folder.rglob("*train.tfrecord*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError):
        list(tfds.load("cifar10", split="train", data_dir=folder))


def test_two_at_once_prepare_once(small_cifar10, capsys):
    with ThreadPoolExecutor(2) as pool:  # the lock is the same between threads and processes
        folders = list(pool.map(data.tfds_dir, ["cifar10", "cifar10"]))
    assert folders[0] == folders[1]
    assert folders[0].exists()
    assert capsys.readouterr().err.count("Preparing") == 1


def test_other_data_sets_are_left_to_tensorflow_datasets_if_their_host_answers(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "answers", lambda _url: False)
    with pytest.raises(data.DataError, match=r"mnist cannot be fetched: no answer from .+"):
        data.tfds_dir("mnist")
    with pytest.raises(data.DataError, match="no data set 'nothing_like_it'"):
        data.tfds_dir("nothing_like_it")


def test_the_order_of_cifar10_is_the_published_one(labels):
    order = _official_order(50_000)
    assert order[:5] == [16399, 1680, 47917, 17307, 27051]
    counts = np.bincount(labels[order[:45_000]])
    assert counts.tolist() == [4530, 4508, 4522, 4526, 4497, 4503, 4505, 4500, 4456, 4453]


def test_the_counts_of_the_book_come_from_the_order_of_its_day(labels):
    """Version 1.0.2: ten shards, each shuffled; validation had the first 10 of every 100."""
    random, training = np.random.RandomState(42), np.zeros(10, int)
    for shard in range(10):
        keys = list(range(shard, 50_000, 10))
        random.shuffle(keys)
        training += np.bincount(labels[keys][np.arange(5000) % 100 >= 10])
    assert training.tolist() == [4492, 4473, 4491, 4497, 4481, 4519, 4509, 4515, 4517, 4506]


def test_the_sample_can_be_chosen_again(labels):
    random = np.random.default_rng(0)
    chosen = [np.sort(random.choice(np.flatnonzero(labels == k), 240, False)) for k in range(10)]
    with data.path("cifar10_sample", "train.csv").open(newline="") as file:
        rows = [int(row["index"]) for row in csv.DictReader(file)]
    assert rows == np.concatenate(chosen).tolist()
