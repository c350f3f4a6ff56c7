"""The course's own data: what is bundled, its builders, and whole sets where they are at hand."""

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

from labkit import data, fetch, sheets

import numpy as np
import pandas
import PIL.Image
import pytest

ROOT = Path(data.__file__).parent.parent
MIRROR = Path(os.environ.get("LABS_MIRROR", ROOT.parent / "shared" / "data"))
CIFAR_BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)]
SAMPLES = {  # images of each class for training and test, shape of an image, some classes
    "cifar10_sample": ([240, 50], (32, 32, 3), {0: "airplane", 9: "truck"}),
    "mnist_sample": ([500, 100], (28, 28, 1), {0: "0", 9: "9"}),
    "fashion_mnist_sample": ([500, 100], (28, 28, 1), {0: "T-shirt/top", 9: "Ankle boot"}),
}
every_sample = pytest.mark.parametrize("name", SAMPLES)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty home, no mirror, and an error for whoever opens a connection."""

    def refuse(*_args):
        raise AssertionError("this must work without network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABS_MIRROR", raising=False)


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """Return a function that gives the examples of a whole set by their index, if it is here."""

    def read(name: str, split: str) -> dict:
        folder = Path(os.environ["LABS_USER_HOME"], "cache", name)
        if not all((folder / file).exists() for file in data.dataset(name)["files"]):
            pytest.skip(f"{name} is not in the cache (python -m labkit.data fetch {name})")
        monkeypatch.setenv("LABS_HOME", os.environ["LABS_USER_HOME"])
        return dict(enumerate(example for _, example in _examples(name, split, tmp_path)))

    return read


@pytest.fixture
def labels(whole):
    """Return the labels of the whole CIFAR-10 training set, if it is in the cache."""
    return np.array([example["label"] for example in whole("cifar10", "train").values()])


def _examples(name: str, split: str, folder: Path) -> list[tuple]:
    """Return index and example of everything that a builder of ours reads, in its order."""
    files = {file: data.path(name, file) for file in data.dataset(name)["files"]}
    builder = data._code(data.dataset(name)["builder"])(files=files, data_dir=folder)
    return list(builder._split_generators(None)[split])


def test_what_is_bundled_is_small_verified_and_complete(offline):
    names = {folder.name for folder in (data.DATASETS / "bundled").iterdir()}
    assert names >= {"king_county", *SAMPLES}
    for name in names:
        files = data.dataset(name)["files"]
        bundled = [data.path(name, file) for file in files]
        assert {place.name for place in bundled[0].parent.iterdir()} == set(files)
        limit = {"cifar10_sample": 5e6, "efficientnet_lite0": 10e6}.get(name, 3e6)
        assert sum(facts["bytes"] for facts in files.values()) < limit


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


@every_sample
def test_a_sample_loads_without_network(offline, name):
    import tensorflow_datasets as tfds

    counts, shape, classes = SAMPLES[name]
    folder = data.tfds_dir(name)
    started = time.monotonic()
    assert data.tfds_dir(name) == folder
    assert time.monotonic() - started < 1
    assert {key.split("/")[0] for key in data.used()} >= {name}
    splits, info = tfds.load(name, split=["train", "test"], data_dir=folder, with_info=True)
    assert classes.items() <= dict(enumerate(info.features["label"].names)).items()
    for split, count in zip(splits, counts, strict=True):
        images = list(tfds.as_numpy(split))
        assert np.bincount([image["label"] for image in images]).tolist() == [count] * 10
        assert {image["image"].shape for image in images} == {shape}


@every_sample
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_sample_is_a_part_of_the_whole(whole, tmp_path, name, split):
    examples = whole(name.removesuffix("_sample"), split)
    for index, example in _examples(name, split, tmp_path):
        assert example["label"] == examples[index]["label"]
        assert (example["image"] == examples[index]["image"]).all()


@every_sample
def test_a_sample_can_be_chosen_again(whole, tmp_path, name):
    examples = whole(name.removesuffix("_sample"), "train")
    labels = np.array([example["label"] for example in examples.values()])
    per_class, random = SAMPLES[name][0][0], np.random.default_rng(0)
    chosen = data._code("make_bundled:balanced")(labels, per_class, random)
    assert [index for index, _ in _examples(name, "train", tmp_path)] == chosen.tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_contact_sheet_gives_its_pictures_back(tmp_path, channels):
    random, n = np.random.default_rng(0), 2 * sheets.COLUMNS
    pictures = random.integers(0, 256, (n, 4, 5, channels), np.uint8)
    indices, labels = random.permutation(n), random.integers(0, 10, n)
    sheets.save(tmp_path, "train", pictures, indices, labels)
    files = {file.name: file for file in tmp_path.iterdir()}
    read = list(sheets.read(files, "train", 4, 5, channels))
    assert [(index, label) for index, _, label in read] == list(zip(indices, labels, strict=True))
    assert (np.array([picture for _, picture, _ in read]) == pictures).all()
    with pytest.raises(ValueError, match="multiple of 50 pictures, not 99"):
        sheets.save(tmp_path, "train", pictures[:-1], indices[:-1], labels[:-1])


def _code(name: str):
    return data._code(f"cifar10:{name}")


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
    with pytest.raises(data.DataError, match=r"kmnist cannot be fetched: no answer from .+"):
        data.tfds_dir("kmnist")
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
