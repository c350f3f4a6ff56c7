"""Photos: cats and dogs and flowers by every route, and a student's own, whatever they are."""

import csv
import hashlib
import io
import shutil
import socket
import tempfile
import time
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

from labkit import data, fetch, originals
from preprocessing import centre_square, image_array, photo_folder
from tools import build

import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tomlkit
from hypothesis import given, settings
from test_data_failures import MANIFEST, Server, course, facts, server, tarred, zipped

__all__ = ["course", "server"]  # fixtures

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
DATASETS = MANIFEST.parent
CLASSES = {
    "cats_vs_dogs": ["cats", "dogs"],
    "flowers": ["daisy", "dandelion", "roses", "sunflowers", "tulips"],
}
both = pytest.mark.parametrize("name", CLASSES)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> PIL.Image.Image:
    """Return a picture without sharp edges, another one for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return PIL.Image.fromarray(small).resize((width, height)).convert(mode)


def encoded(image: PIL.Image.Image, kind: str = "jpeg", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def order(members: list[str]) -> list[str]:
    """Return the names in the order of a TensorFlow data set: by MD5 of split and key."""
    return sorted(members, key=lambda member: hashlib.md5(f"train{member}".encode()).digest())


class Shop:
    """The real manifest's entry of a data set, with four photos of each class on a server."""

    def __init__(self, name: str, server: Server):
        self.name, self.server = name, server
        names = [f"{folder}/{number}.jpg" for folder in CLASSES[name] for number in range(4)]
        self.members = {
            member: encoded(picture(210 + 7 * seed, 240, seed=seed))
            for seed, member in enumerate(names)
        }
        self.paths = {member: f"{member[:2]} photos/{member}" for member in names}
        self.entry = tomllib.loads(MANIFEST.read_text("utf-8"))[name]
        (self.source,) = self.entry["sources"]
        self.zip = zipped({member: encoded(picture(40, 30)) for member in names})
        self.entry["files"] = {f"{name}.zip": facts(self.zip)}
        (data.DATASETS / "originals").mkdir()
        shutil.copy(DATASETS / "photos.py", data.DATASETS)
        self.list_originals()
        if "archive" in self.source:
            self.pack(self.members)
        else:
            self.base = f"/{self.source['repo'].replace('@', '/')}/dataset/"
            for member, content in self.members.items():
                server.pages[self.page(member)] = content
        self.write()

    def page(self, member: str) -> str:
        """Return where the server has an original."""
        return self.base + self.paths[member].replace(" ", "%20")

    def pack(self, members: dict[str, bytes]) -> None:
        """Put an archive with these originals on the server."""
        inside = {f"flower_photos/{self.paths[m]}": content for m, content in members.items()}
        content = tarred({"flower_photos/LICENSE.txt": b"", **dict(reversed(inside.items()))})
        self.server.pages["/flower_photos.tgz"] = content
        self.source.update(url=f"{self.server.url}/flower_photos.tgz", **facts(content))
        self.write()

    def list_originals(self) -> None:
        """Write the list of the originals."""
        self.list = data.DATASETS / "originals" / self.source["originals"]
        with self.list.open("w", newline="") as lines:
            rows = csv.DictWriter(lines, originals.Original._fields)
            rows.writeheader()
            for member, content in self.members.items():
                rows.writerow({"member": member, "path": self.paths[member], **facts(content)})

    def write(self) -> None:
        """Write the manifest."""
        (data.DATASETS / "manifest.toml").write_text(tomlkit.dumps({self.name: self.entry}))
        data.manifest.cache_clear()

    def refused(self, *words: str) -> None:
        """Ask for the zip; expect a `DataError` with all words, the hash and the place."""
        with pytest.raises(data.DataError) as caught:
            data.path(self.name)
        target = data.home() / "cache" / self.name / f"{self.name}.zip"
        for word in (*words, facts(self.zip)["sha256"], str(target), "LABS_MIRROR"):
            assert word in str(caught.value)
        assert not target.exists()
        assert not list(data.home().rglob("tmp*"))


@pytest.fixture
def shop(course, server, monkeypatch):
    monkeypatch.setattr(data, "RAW", server.url)
    return lambda name: Shop(name, server)


# --- the committed lists --------------------------------------------------------------------------


@both
def test_the_lists_are_complete(name):
    listed = originals._read(DATASETS / "originals" / f"{name}.csv")
    members = [one.member for one in listed]
    assert len(set(members)) == len({one.path for one in listed}) == len(members)
    counts = Counter(member.split("/")[0] for member in members)
    expected = {"cats_vs_dogs": [2000, 2000], "flowers": [633, 898, 641, 699, 799]}
    assert [counts[folder] for folder in CLASSES[name]] == expected[name]
    assert all(len(one.sha256) == 64 and one.bytes > 1000 for one in listed)
    assert (
        sum(one.bytes for one in listed)
        == {
            "cats_vs_dogs": 180_287_513,
            "flowers": 232_452_135,  # TensorFlow's catalogue says 221.83 MiB, with labels
        }[name]
    )


@both
def test_the_split_of_the_card(name):
    """Slices of 80, 10 and 10 % mix the classes, and no photo lies in two of them."""
    listed = originals._read(DATASETS / "originals" / f"{name}.csv")
    hashes = {one.member: one.sha256 for one in listed}
    dealt = order(list(hashes))
    limits = [round(share * len(dealt)) for share in (0, 0.8, 0.9, 1)]
    parts = [dealt[limits[k] : limits[k + 1]] for k in range(3)]
    counts = [Counter(member.split("/")[0] for member in part) for part in parts]
    assert [[count[folder] for folder in CLASSES[name]] for count in counts] == {
        "cats_vs_dogs": [[1605, 1595], [206, 194], [189, 211]],
        "flowers": [
            [513, 739, 510, 561, 613],
            [59, 89, 56, 62, 101],
            [61, 70, 75, 76, 85],
        ],
    }[name]
    contents = [{hashes[member] for member in part} for part in parts]
    assert sum(map(len, contents)) == len(set().union(*contents))


@both
def test_the_mirror_holds_what_the_list_says(name):
    from test_data import MIRROR

    file = MIRROR / name / f"{name}.zip"
    if not file.exists():
        pytest.skip("no mirror with the photos")
    assert fetch.right(file, **data.dataset(name)["files"][file.name])
    listed = originals._read(DATASETS / "originals" / f"{name}.csv")
    with zipfile.ZipFile(file) as archive:
        assert sorted(archive.namelist()) == sorted(one.member for one in listed)


# --- builders -------------------------------------------------------------------------------------


def filenames(examples) -> list[str]:
    return [example["image/filename"].decode() for example in tfds.as_numpy(examples)]


@both
@pytest.mark.parametrize("route", ["mirror", "public"])
def test_photos_load_by_every_route_in_the_same_order(shop, monkeypatch, tmp_path, name, route):
    toys = shop(name)
    if route == "mirror":
        (tmp_path / "mirror" / name).mkdir(parents=True)
        (tmp_path / "mirror" / name / f"{name}.zip").write_bytes(toys.zip)
        monkeypatch.setenv("LABS_MIRROR", str(tmp_path / "mirror"))
    folder = data.tfds_dir(name)
    assert bool(toys.server.asked) == (route == "public")
    builder = tfds.builder(name, data_dir=folder)
    assert type(builder).__module__.startswith("tensorflow_datasets.")  # ours is not needed
    assert builder.info.features.keys() == {"image", "image/filename", "label"}
    assert builder.info.splits["train"].num_shards == 1
    singular = {"cats": "cat", "dogs": "dog"}
    classes = [singular.get(folder, folder) for folder in CLASSES[name]]
    assert builder.info.features["label"].names == classes
    whole, part = tfds.load(name, split=["train", "train[50%:]"], data_dir=folder)
    expected = order(list(toys.members))
    assert filenames(whole) == expected
    assert filenames(part) == expected[len(expected) // 2 :]
    for example in tfds.as_numpy(whole):
        assert example["image"].dtype == np.uint8
        assert example["image/filename"].decode().startswith(classes[example["label"]])


@both
def test_photos_are_stored_as_they_are(shop, name):
    toys = shop(name)
    place = data.home() / "cache" / name / f"{name}.zip"
    place.parent.mkdir(parents=True)
    place.write_bytes(toys.zip)  # put there by hand
    raw = tfds.load(
        name,
        split="train",
        data_dir=data.tfds_dir(name),
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    with zipfile.ZipFile(place) as archive:
        for example in tfds.as_numpy(raw):
            assert example["image"] == archive.read(example["image/filename"].decode())


def test_faces_have_no_labels(tmp_path, monkeypatch):
    folder, name = tmp_path / "datasets", "celeba_half_10k.zip"
    faces = {f"{n:06}.jpg": encoded(picture(89, 109, seed=n)) for n in range(1, 6)}
    (folder / "bundled" / "celeba").mkdir(parents=True)
    (folder / "bundled" / "celeba" / name).write_bytes(content := zipped(faces))
    shutil.copy(DATASETS / "photos.py", folder)
    entry = tomllib.loads(MANIFEST.read_text("utf-8"))["celeba"]
    entry["files"] = {name: facts(content)}
    (folder / "manifest.toml").write_text(tomlkit.dumps({"celeba": entry}))
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(data, "DATASETS", folder)
    examples = tfds.load("celeba", split="train", data_dir=data.tfds_dir("celeba"))
    assert filenames(examples) == order(list(faces))
    for example in tfds.as_numpy(examples):
        assert example.keys() == {"image", "image/filename"}
        assert example["image"].shape == (109, 89, 3)


def test_the_mirror_holds_ten_thousand_faces():
    from test_data import MIRROR

    ((name, known),) = data.dataset("celeba")["files"].items()
    file = MIRROR / "celeba" / name
    if not file.exists():
        pytest.skip("no mirror with the faces")
    assert fetch.right(file, **known)
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == [f"{n:06}.jpg" for n in range(1, 10_001)]


def test_the_official_set_is_asked_for_by_its_version(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "answers", lambda _url: False)
    with pytest.raises(data.DataError, match=r"no answer from download\.microsoft\.com"):
        data.tfds_dir("cats_vs_dogs:4.0.1")


# --- the public route -----------------------------------------------------------------------------


@both
def test_the_zip_is_made_once(shop, name, capsys):
    toys = shop(name)
    place = data.path(name)
    with zipfile.ZipFile(place) as archive:
        assert archive.namelist() == list(toys.members)
        for member, content in toys.members.items():
            made = PIL.Image.open(io.BytesIO(archive.read(member)))
            original = PIL.Image.open(io.BytesIO(content))
            assert min(made.size) == {"cats_vs_dogs": 192, "flowers": 176}[name]
            same = np.asarray(original.resize(made.size), float)
            assert np.abs(np.asarray(made, float) - same).mean() < 3
    note = f"{place.name}.made.json"
    assert {file.name for file in place.parent.iterdir()} == {".lock", place.name, note}
    assert data.used() == {
        f"{name}/{name}.zip": f"{facts(place.read_bytes())['sha256']} made from "
        f"{facts(toys.list.read_bytes())['sha256']}"
    }
    asked, content = len(toys.server.asked), place.read_bytes()
    assert data.path(name).read_bytes() == content
    assert len(toys.server.asked) == asked
    assert data.main(["verify", name]) == 0
    assert "made here" in capsys.readouterr().out
    place.unlink()
    assert data.path(name).read_bytes() == content  # the same photos make the same file


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_a_made_zip_can_be_shared_with_its_note(shop, monkeypatch, tmp_path, kind):
    toys = shop("cats_vs_dogs")
    content, known = data.path("cats_vs_dogs").read_bytes(), data.used()
    mirror = data.home() / "cache"
    for file in ("cats_vs_dogs.zip", "cats_vs_dogs.zip.made.json"):
        toys.server.pages[f"/cats_vs_dogs/{file}"] = (mirror / "cats_vs_dogs" / file).read_bytes()
    monkeypatch.setenv("LABS_MIRROR", {"folder": str(mirror), "url": toys.server.url}[kind])
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "student"))
    toys.server.asked.clear()
    monkeypatch.setattr(data, "_used", {})
    assert data.path("cats_vs_dogs").read_bytes() == content
    assert data.used() == known
    assert {page.split("/")[1] for page, _ in toys.server.asked} <= {"cats_vs_dogs"}


@pytest.mark.parametrize("spoilt", ["cats_vs_dogs.zip", "cats_vs_dogs.zip.made.json"])
def test_a_mirror_whose_zip_does_not_fit_its_note(shop, monkeypatch, tmp_path, spoilt):
    toys = shop("cats_vs_dogs")
    content = data.path("cats_vs_dogs").read_bytes()
    shutil.copytree(data.home() / "cache", tmp_path / "mirror")
    file = tmp_path / "mirror" / "cats_vs_dogs" / spoilt
    file.write_bytes(file.read_bytes().replace(b"a", b"b"))
    monkeypatch.setenv("LABS_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "student"))
    toys.server.asked.clear()
    assert data.path("cats_vs_dogs").read_bytes() == content
    assert len(toys.server.asked) == 8  # the originals


@both
def test_later_damage_is_noticed(shop, name, capsys):
    shop(name)
    content = data.path(name).read_bytes()
    data.path(name).write_bytes(content[:-1] + b"?")
    assert data.main(["verify", name]) == 1
    assert "damaged" in capsys.readouterr().out
    assert data.path(name).read_bytes() == content


@pytest.mark.parametrize("note", [b"", b"{}", b"[1]", b"\xff", b'{"bytes": 1, "sha256": "x"}'])
def test_a_note_that_cannot_be_read_counts_for_nothing(shop, note):
    toys = shop("cats_vs_dogs")
    place = data.path("cats_vs_dogs")
    place.with_name(f"{place.name}.made.json").write_bytes(note)
    toys.server.pages.clear()
    place.rename(place.with_name("elsewhere"))
    toys.refused("404")
    place.with_name("elsewhere").rename(place)
    with pytest.raises(data.DataError):
        data.path("cats_vs_dogs")


def test_another_list_makes_another_zip(shop):
    toys = shop("cats_vs_dogs")
    data.path("cats_vs_dogs")
    before = data.used()
    assert build.changed_data(before) == []
    toys.members.popitem()
    toys.list_originals()
    assert build.changed_data(before) == ["cats_vs_dogs/cats_vs_dogs.zip"]
    with zipfile.ZipFile(data.path("cats_vs_dogs")) as archive:
        assert archive.namelist() == list(toys.members)
    assert build.changed_data(data.used()) == []


def test_what_is_current(shop):
    toys = shop("cats_vs_dogs")
    sha256, listed = facts(toys.zip)["sha256"], facts(toys.list.read_bytes())["sha256"]
    file = "cats_vs_dogs.zip"
    assert data.current("cats_vs_dogs", file, sha256)
    assert data.current("cats_vs_dogs", file, f"{'0' * 64} made from {listed}")
    assert not data.current("cats_vs_dogs", file, "0" * 64)
    assert not data.current("cats_vs_dogs", file, f"{sha256} made from {'0' * 64}")
    assert not data.current("cats_vs_dogs", "gone.zip", sha256)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda _content: None, "404"),
        (lambda content: content[:-1] + b"?", "or others: SHA-256 is not "),
        (lambda content: content + b"?", "bytes came instead of the original's "),
    ],
    ids=["missing", "damaged", "too long"],
)
def test_an_original_that_is_not_right_stops_and_the_next_run_goes_on(shop, spoil, words):
    toys = shop("cats_vs_dogs")
    members = list(toys.members)
    page = toys.page(members[3])
    toys.server.pages[page] = spoil(toys.members[members[3]])
    toys.refused(words, toys.paths[members[3]], "5 originals are still to come", "run it again")
    assert data.used() == {}
    pages = [toys.page(member) for member in members]
    assert [asked for asked, _ in toys.server.asked] == [*pages[:4], page]
    toys.server.asked.clear()
    toys.server.pages[page] = toys.members[members[3]]
    data.path("cats_vs_dogs")
    assert [asked for asked, _ in toys.server.asked] == pages[3:]


def test_a_kept_original_that_was_damaged_comes_again(shop):
    toys = shop("cats_vs_dogs")
    members = list(toys.members)
    del toys.server.pages[toys.page(members[-1])]
    toys.refused("404")
    kept = data.home() / "cache" / "cats_vs_dogs" / "cats_vs_dogs.zip.originals" / members[2]
    kept.write_bytes(b"x" + kept.read_bytes()[1:])
    toys.server.asked.clear()
    toys.server.pages[toys.page(members[-1])] = toys.members[members[-1]]
    data.path("cats_vs_dogs")
    asked = [page for page, _ in toys.server.asked]
    assert asked == [toys.page(members[2]), toys.page(members[-1])]


def test_broken_transfers_are_tried_twice_and_then_reported(shop):
    toys = shop("cats_vs_dogs")
    toys.server.cut = 1000
    toys.refused("8 originals are still to come")
    assert len(toys.server.asked) == 2
    toys.server.cut = None
    assert data.path("cats_vs_dogs").exists()


@pytest.mark.parametrize("step", ["_keep", "tqdm"])
def test_an_interrupted_run_goes_on(shop, monkeypatch, step):
    """Ctrl-C while originals come, and while the zip is made."""
    toys = shop("cats_vs_dogs")
    calls = []

    def stop_the_sixth(*arguments, **options):
        calls.append(arguments)
        if len(calls) == {"_keep": 6, "tqdm": 2}[step]:
            raise KeyboardInterrupt
        return went_on(*arguments, **options)

    went_on = getattr(originals, step)
    with monkeypatch.context() as patched:
        patched.setattr(originals, step, stop_the_sixth)
        with pytest.raises(KeyboardInterrupt):
            data.path("cats_vs_dogs")
    toys.server.asked.clear()
    assert data.path("cats_vs_dogs").exists()
    assert len(toys.server.asked) == {"_keep": 3, "tqdm": 0}[step]


def test_a_dead_host_costs_seconds(shop, monkeypatch):
    monkeypatch.setattr(fetch, "READ_SECONDS", 1)
    toys = shop("cats_vs_dogs")
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(data, "RAW", f"http://127.0.0.1:{silent.getsockname()[1]}")
        toys.refused("timed out", "8 originals are still to come")
    toys.refused("refused", "8 originals are still to come")  # the port is closed now
    assert time.monotonic() - started < 8


def test_a_full_disk_is_called_one(shop, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    shop("cats_vs_dogs")
    with monkeypatch.context() as patched:
        patched.setattr(originals, "write", full)
        with pytest.raises(data.DataError, match=r"cannot be stored.*No space left on device"):
            data.path("cats_vs_dogs")
    assert data.path("cats_vs_dogs").exists()


def test_an_archive_of_other_originals_is_refused(shop):
    toys = shop("flowers")
    members = dict(toys.members)
    spoilt = next(iter(members))
    toys.pack(members | {spoilt: members[spoilt][:-1] + b"?"})
    toys.refused("SHA-256 is not ")
    toys.pack({member: content for member, content in members.items() if member != spoilt})
    (data.home() / "cache" / "flowers" / "flower_photos.tgz").unlink(missing_ok=True)
    toys.refused("lacks 1 originals", toys.paths[spoilt])
    toys.server.pages["/flower_photos.tgz"] = toys.server.pages["/flower_photos.tgz"][:-9]
    toys.source.update(facts(toys.server.pages["/flower_photos.tgz"]))
    toys.write()
    toys.refused("flower_photos.tgz: ")
    toys.pack(members)
    assert data.path("flowers").exists()


@pytest.mark.parametrize("key", ["recipe", "originals"])
def test_a_faulty_manifest_is_named(shop, key):
    toys = shop("cats_vs_dogs")
    toys.source[key] = 1
    toys.write()
    with pytest.raises(data.DataError, match=f"manifest, cats_vs_dogs, chanakya.*: '{key}' must"):
        data.path("cats_vs_dogs")


@few
@given(st.integers(20, 300), st.integers(20, 300), st.integers(20, 250))
def test_shrink_keeps_the_shape_and_never_enlarges(width, height, shorter_side):
    content = encoded(picture(width, height))
    small = PIL.Image.open(io.BytesIO(data._code("photos:shrink")(content, shorter_side)))
    assert (small.format, small.mode) == ("JPEG", "RGB")
    scale = min(1, shorter_side / min(width, height))
    assert small.size == (round(scale * width), round(scale * height))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_shrink_makes_rgb_and_turns_upright(mode):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    content = encoded(picture(60, 40, mode), exif=exif)
    small = PIL.Image.open(io.BytesIO(data._code("photos:shrink")(content, 20)))
    assert (small.mode, small.size) == ("RGB", (20, 30))
    assert not small.getexif()


# --- one photo ------------------------------------------------------------------------------------


@few
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 50), st.integers(0, 99))
def test_centre_square_agrees_with_pillow(height, width, size, seed):
    photo = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = PIL.Image.fromarray(photo).crop((left, top, left + side, top + side))
    expected = np.asarray(square.resize((size, size), PIL.Image.Resampling.BILINEAR), float)
    result = centre_square(photo, size).numpy()
    assert result.shape == (size, size, 3)
    assert result.dtype == np.float32
    assert 0 <= result.min() <= result.max() <= 1
    assert np.abs(255 * result - expected).max() < 1.1  # Pillow rounds twice


def test_centre_square_leaves_a_photo_of_that_size_alone():
    photo = np.asarray(picture(32, 32))
    np.testing.assert_allclose(255 * centre_square(photo, 32), photo, rtol=0, atol=1e-4)


def test_centre_square_works_in_a_pipeline():
    photos = [np.asarray(picture(40 + 9 * seed, 50, seed=seed)) for seed in range(3)]
    signature = tf.TensorSpec((None, None, 3), tf.uint8)
    examples = tf.data.Dataset.from_generator(lambda: photos, output_signature=signature)
    batch = next(iter(examples.map(lambda photo: centre_square(photo, 24)).batch(3)))
    assert batch.shape == (3, 24, 24, 3)
    for photo, result in zip(photos, batch, strict=True):
        np.testing.assert_allclose(result, centre_square(photo, 24), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("photo", "size", "message"),
    [
        (np.zeros((4, 4, 3), "float32"), 2, "must be uint8, not float32"),
        (np.zeros((4, 4), "uint8"), 2, r"must have shape \(height, width, 3\), not \(4, 4\)"),
        (np.zeros((4, 4, 4), "uint8"), 2, r"not \(4, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), "uint8"), 2, r"not \(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), "uint8"), 2, r"not \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), "uint8"), 0, "at least 1, not 0"),
    ],
)
def test_centre_square_refuses(photo, size, message):
    with pytest.raises(ValueError, match=message):
        centre_square(photo, size)


def examples_of(images) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices({"image": images})


def test_images_are_surrounded_with_black():
    grey = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    images = image_array(examples_of(grey), 32, 32)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.pad(grey, [(0, 0), (2, 2), (2, 2), (0, 0)]))


def test_the_middle_of_images_is_cut_out_and_scaled():
    photos = np.random.default_rng(0).integers(0, 256, (2, 109, 89, 3), np.uint8)
    photos[:, 27:81, 17:71] = 200  # the middle 54 × 54 pixels
    images = image_array(examples_of(photos), 54, 64)
    assert images.shape == (2, 64, 64, 3)
    assert (images == 200).all()
    photos = np.stack([np.asarray(picture(108, 108, seed=seed)) for seed in range(3)])
    expected = np.stack([255 * centre_square(photo, 64) for photo in photos])
    assert np.abs(image_array(examples_of(photos), 108, 64) - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("images", "crop", "message"),
    [
        (np.zeros((2, 4, 4, 1), "float32"), 4, "must be dicts with 'image', uint8"),
        (np.zeros((0, 4, 4, 1), "uint8"), 4, "there are no examples"),
        (np.zeros((2, 4, 4, 1), "uint8"), 0, "crop and size must be at least 1, not 0 and 4"),
    ],
)
def test_image_array_refuses(images, crop, message):
    with pytest.raises(ValueError, match=message):
        image_array(examples_of(images), crop, 4)


# --- a student's own photos -----------------------------------------------------------------------


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def turned(image: PIL.Image.Image) -> bytes:
    """Return a photo as a camera stores it that was held upright."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded(image.rotate(90, expand=True), exif=exif, quality=95)


@pytest.fixture
def garden(tmp_path):
    """A folder with five good photos in two classes, and what else lies about in folders."""
    jpeg = encoded(picture(60, 40))
    good = {
        "Äpfel/IMG 1.JPG": jpeg,
        "Äpfel/turned.jpeg": turned(picture(40, 60, seed=1)),
        "Äpfel/りんご.png": encoded(picture(30, 50, seed=2), "png"),
        "pears/1.webp": encoded(picture(80, 80, seed=3), "webp"),
        "pears/no suffix": encoded(picture(9, 7, seed=4), "bmp"),
    }
    bad = {
        "Äpfel/alpha.png": encoded(picture(9, 9, "RGBA"), "png"),
        "Äpfel/broken.jpg": jpeg[: len(jpeg) // 2],
        "Äpfel/cmyk.jpg": encoded(picture(9, 9, "CMYK")),
        "Äpfel/empty.jpg": b"",
        "Äpfel/grey.jpg": encoded(picture(9, 9, "L")),
        "Äpfel/more/photo.jpg": jpeg,
        "pears/Thumbs.db": b"\xd0\xcf\x11\xe0",
        "pears/colours.gif": encoded(picture(9, 9), "gif"),
        "pears/page.jpg": b"<!doctype html><title>404</title>",
        "read me.txt": b"photos of fruit",
    }
    hidden = {".DS_Store": b"x", ".ipynb_checkpoints/1.jpg": jpeg, "pears/._1.webp": b"x"}
    return fill(tmp_path / "Obst", {**good, **bad, **hidden}), good


def test_own_photos(garden):
    folder, _ = garden
    images, labels, class_names, skipped = photo_folder(folder, 24)
    assert images.shape == (5, 24, 24, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert class_names == ["pears", "Äpfel"]
    assert labels.tolist() == [0, 0, 1, 1, 1]
    assert {str(path.relative_to(folder).as_posix()): reason for path, reason in skipped} == {
        "read me.txt": "lies in no sub-folder",
        "pears/Thumbs.db": "is no image that can be read",
        "pears/colours.gif": "is not RGB but a palette",
        "pears/page.jpg": "is no image that can be read",
        "Äpfel/alpha.png": "is not RGB but RGB with transparency",
        "Äpfel/broken.jpg": next(why for path, why in skipped if path.name == "broken.jpg"),
        "Äpfel/cmyk.jpg": "is not RGB but CMYK",
        "Äpfel/empty.jpg": "is empty",
        "Äpfel/grey.jpg": "is not RGB but grey",
        "Äpfel/more": "is a folder: photos must lie in the folder of their class itself",
    }
    assert dict(skipped)[folder / "Äpfel" / "broken.jpg"].startswith("cannot be read: ")
    again = photo_folder(str(folder), 24)
    assert (again[0] == images).all()


def test_own_photos_are_prepared_as_those_of_data_sets(garden):
    folder, good = garden
    images, *_ = photo_folder(folder, 24)
    names = ["pears/1.webp", "pears/no suffix", "Äpfel/IMG 1.JPG", "Äpfel/りんご.png"]
    for place, name in zip([0, 1, 2, 4], names, strict=True):
        decoded = np.asarray(PIL.Image.open(io.BytesIO(good[name])))
        difference = images[place] / 255 - centre_square(decoded, 24)
        assert np.abs(difference).max() <= 0.5001 / 255
    decoded = tf.io.decode_image(good["Äpfel/IMG 1.JPG"], channels=3)
    assert np.abs(images[2] / 255 - centre_square(decoded, 24)).max() < 4 / 255  # another decoder
    upright = np.asarray(picture(40, 60, seed=1))
    assert np.abs(images[3] / 255 - centre_square(upright, 24)).max() < 0.1  # JPEG's loss


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "there is no folder .*: make a sub-folder for each class"),
        ({"1.jpg": b"x"}, "has 0 sub-folders: make a sub-folder for each class, at least two"),
        ({"cats/1.jpg": b"x"}, "has 1 sub-folders: make"),
        ({"cats/1.jpg": b"x", ".dogs/1.jpg": b"x"}, "has 1 sub-folders: make"),
        ({"cats/1.jpg": b"", "dogs/1.jpg": b""}, r"cats has no usable photo \(1.jpg is empty\): "),
        ({"cats/.keep": b"", "dogs/1.jpg": b""}, r"cats has no usable photo \(empty\): make"),
    ],
)
def test_a_folder_that_is_not_arranged(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        photo_folder(fill(tmp_path / "photos", files), 24)


def test_a_class_without_photos_among_others(garden):
    folder, _ = garden
    fill(folder, {"zebras/stripes.jpg": encoded(picture(9, 9, "L"))})
    with pytest.raises(ValueError, match=r"zebras has no usable photo \(stripes.jpg is not RGB"):
        photo_folder(folder, 24)


def test_links_that_lead_nowhere_are_reported(garden):
    folder, _ = garden
    lost = [folder / "cherries", folder / "pears" / "lost.jpg"]
    for link in lost:
        try:
            link.symlink_to(folder / "a drive that is not there")
        except OSError:
            pytest.skip("this system does not let us make links")
    _, _, class_names, skipped = photo_folder(folder, 8)
    assert class_names == ["pears", "Äpfel"]
    assert {dict(skipped)[link] for link in lost} == {"is a link that leads nowhere, or no file"}


def test_a_class_that_cannot_be_opened(garden, monkeypatch):
    folder, _ = garden
    real = Path.iterdir

    def iterdir(place):
        if place.name == "pears":
            raise PermissionError(13, "Permission denied")
        return real(place)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(ValueError, match="pears cannot be opened: Permission denied"):
        photo_folder(folder, 8)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp"])
@few
@given(change=st.data())
def test_a_damaged_photo_is_read_or_reported(kind, change):
    content = bytearray(encoded(picture(20, 30), kind))
    for place in change.draw(st.lists(st.integers(0, len(content) - 1), max_size=5)):
        content[place] ^= change.draw(st.integers(1, 255))
    good = encoded(picture(20, 30), "png")
    spoilt = bytes(content[: change.draw(st.integers(1, len(content)))])
    with tempfile.TemporaryDirectory() as name:
        folder = fill(Path(name), {"a/1": good, "a/spoilt": spoilt, "b/1": good})
        images, _, _, skipped = photo_folder(folder, 8)
    assert len(images) + len(skipped) == 3
    assert all(path.name == "spoilt" and reason for path, reason in skipped)
