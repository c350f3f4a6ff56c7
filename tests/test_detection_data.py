"""Objects in images: annotations with faults, changes that keep boxes right, and the data sets."""

import csv
import functools
import io
import shutil
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import preprocessing
from labkit import data, fetch, originals
from labkit.boxes import average_precisions, box_area, judge_detections
from preprocessing import (
    Problem,
    color,
    flip_objects,
    jitter_objects,
    letterbox,
    object_batches,
    on_images,
    parse_objects,
    parse_voc,
    read_voc,
    unletterbox_boxes,
)

import hypothesis.strategies as st
import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tomlkit
from hypothesis import given, settings
from test_data import MIRROR, offline
from test_data_failures import MANIFEST, course, facts, server
from test_preprocessing import LOWEST, always

__all__ = ["course", "offline", "server"]  # fixtures

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2)
DATASETS = MANIFEST.parent

# --- annotations ----------------------------------------------------------------------------------

CLASSES = ("cat", "dog")
XML = """<annotation>
  <filename>a.jpg</filename>
  <size>
    <width>80</width>
    <height>60</height>
  </size>
  <object>
    <name>cat</name>
    <truncated>1</truncated>
    <difficult>0</difficult>
    <bndbox>
      <xmin>8</xmin>
      <ymin>6</ymin>
      <xmax>40</xmax>
      <ymax>30</ymax>
    </bndbox>
  </object>
  <object>
    <name>dog</name>
    <difficult>1</difficult>
    <bndbox>
      <ymin>0</ymin>
      <ymax>60</ymax>
      <xmin>0</xmin>
      <xmax>80</xmax>
    </bndbox>
  </object>
</annotation>
"""


def jpeg(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "jpeg")
    return stream.getvalue()


@pytest.fixture
def voc(tmp_path):
    """Two annotated images, a and b; return a folder with `xml`, `images` and a list."""
    for folder in ("xml", "images"):
        (tmp_path / folder).mkdir()
    for name in "ab":
        (tmp_path / "xml" / f"{name}.xml").write_text(XML.replace("a.jpg", f"{name}.jpg"))
        (tmp_path / "images" / f"{name}.jpg").write_bytes(jpeg(80, 60))
    (tmp_path / "list.txt").write_text("b\na\n")
    return tmp_path


def read(folder, listed=None):
    return read_voc(folder / "xml", folder / "images", CLASSES, listed)


def line_of(text, words):
    return next(n for n, line in enumerate(text.splitlines(), start=1) if words in line)


def test_annotations_are_read(voc):
    annotations, problems = read(voc)
    assert problems == []
    assert [annotation["filename"] for annotation in annotations] == ["a.jpg", "b.jpg"]
    found = annotations[0]
    assert found["size"] == (60, 80)
    assert found["boxes"].dtype == np.float32
    np.testing.assert_allclose(found["boxes"], [[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1]])
    assert found["labels"].tolist() == [0, 1]
    assert found["difficult"].tolist() == [False, True]
    assert found["truncated"].tolist() == [True, False]


def test_a_list_decides_what_is_read_and_in_which_order(voc):
    annotations, problems = read(voc, voc / "list.txt")
    assert [annotation["filename"] for annotation in annotations] == ["b.jpg", "a.jpg"]
    assert problems == []


def test_a_zip_is_read_as_a_folder_is(voc, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in voc.rglob("*.*"):
            if file.suffix != ".zip":
                archive.write(file, file.relative_to(voc).as_posix())
    root = zipfile.Path(tmp_path / "all.zip")
    for listed in (None, "list.txt"):
        inside = read(root, listed and root / listed)
        outside = read(voc, listed and voc / listed)
        assert str(inside) == str(outside)


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("<xmax>40<", "<xmax>4<", "<xmax>4<", "xmax = 4 is less than xmin = 8"),
        ("<ymax>30<", "<ymax>6<", "<ymax>6<", "ymax = ymin = 6: the box has no area"),
        ("<xmax>40<", "<xmax>81<", "<xmax>81<", "x = 8 to 81, outside the image, which is 80 wide"),
        ("<ymin>6<", "<ymin>-1<", "<ymax>30<", "y = -1 to 30, outside the image, which is 60 high"),
        ("<name>cat<", "<name>cow<", "<name>cow<", "unknown class 'cow'"),
        ("<xmin>8<", "<xmin>eight<", "<xmin>eight<", "'eight', which is no number"),
        ("<xmin>8<", "<xmin>nan<", "<xmin>nan<", "'nan', which is no number"),
        ("<xmin>8</xmin>", "", "<object>", "<object> has no <bndbox/xmin>"),
        ("<name>cat<", "<name> <", "<object>", "<object> has no <name>"),
    ],
)
def test_a_faulty_box_is_reported_by_line_and_the_others_are_kept(voc, old, new, at, words):
    file = voc / "xml" / "a.xml"
    text = XML.replace(old, new, 1)
    file.write_text(text)
    annotations, (problem,) = read(voc)
    assert problem.file == str(file)
    assert problem.line == line_of(text, at)
    assert words in problem.reason
    assert str(problem) == f"{file}:{problem.line}: {problem.reason}"
    assert [annotation["labels"].tolist() for annotation in annotations] == [[1], [0, 1]]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("</size>", "</sise>", 6, "broken XML: mismatched tag"),
        ("<annotation>", "<annotation", 2, "broken XML"),
        (XML, "", 1, "broken XML: no element found"),
        ("<annotation>", '<?xml version="1.0" encoding="none"?><annotation>', 1, "broken XML"),
        ("<width>80</width>", "", 1, "<annotation> has no <size/width>"),
        ("<width>80<", "<width>0<", 4, "at least one pixel"),
        ("<filename>a.jpg</filename>", "", 1, "<annotation> has no <filename>"),
        ("a.jpg", "c.jpg", 2, "there is no image"),
        ("<width>80<", "<width>90<", 2, "a.jpg has 80 × 60, not 90 × 60 pixels"),
    ],
)
def test_a_faulty_file_is_reported_and_the_others_are_kept(voc, old, new, line, words):
    file = voc / "xml" / "a.xml"
    file.write_text(XML.replace(old, new, 1))
    annotations, (problem,) = read(voc)
    assert (problem.file, problem.line) == (str(file), line)
    assert words in problem.reason
    assert [annotation["filename"] for annotation in annotations] == ["b.jpg"]


def test_missing_files_and_broken_images_are_reported(voc):
    (voc / "list.txt").write_text("b\n\nghost\na\n")
    (voc / "images" / "b.jpg").write_bytes(b"no image")
    annotations, (broken, missing) = read(voc, voc / "list.txt")
    assert [annotation["filename"] for annotation in annotations] == ["a.jpg"]
    assert (broken.file, broken.line) == (str(voc / "xml" / "b.xml"), 2)
    assert "b.jpg cannot be read" in broken.reason
    ghost = voc / "xml" / "ghost.xml"
    assert missing == Problem(str(voc / "list.txt"), 3, f"there is no file {ghost}")
    (voc / "xml" / "a.xml").unlink()
    annotations, problems = read(voc)
    assert annotations == []
    assert problems[-1] == Problem(str(voc / "images" / "a.jpg"), 1, "the image has no annotation")


class Memory:
    """A file that holds these bytes."""

    def __init__(self, content):
        self.content = content

    def read_bytes(self):
        return self.content


@settings(few, max_examples=200)
@given(st.integers(0, len(XML)), st.integers(0, 20), st.binary(max_size=20))
def test_whatever_is_in_a_file_it_is_read_or_reported(start, length, change):
    content = XML.encode()
    spoilt = content[:start] + change + content[start + length :]
    annotation, problems = parse_voc(Memory(spoilt), CLASSES)
    assert annotation is not None or len(problems) == 1
    if annotation:
        found = annotation["boxes"]
        assert len(found) == len(annotation["labels"])
        assert ((found >= 0) & (found <= 1)).all()
        assert all(problem.line >= 1 for problem in problems)


# --- objects --------------------------------------------------------------------------------------


def make_example(random, height=40, width=60, n=3):
    low = random.uniform(0, 0.5, (n, 2))
    boxes = np.concatenate([low, low + random.uniform(0.1, 0.5, (n, 2))], axis=1)
    return {
        "image": random.integers(0, 256, (height, width, 3), np.uint8),
        "objects": {"bbox": boxes.astype("float32"), "label": random.integers(0, 5, n)},
    }


def test_objects_get_their_form():
    example = make_example(np.random.default_rng(0))
    image, objects = parse_objects(example)
    np.testing.assert_allclose(image, example["image"] / 255, atol=1e-6)
    np.testing.assert_array_equal(objects["boxes"], example["objects"]["bbox"][:, [1, 0, 3, 2]])
    assert objects["labels"].dtype == tf.int64
    assert objects["difficult"].numpy().tolist() == [False] * 3
    example["objects"]["is_difficult"] = np.array([True, False, True])
    example["objects"]["bbox"][1, 2] = example["objects"]["bbox"][1, 0]  # no height
    _, objects = parse_objects(example)
    assert objects["labels"].numpy().tolist() == example["objects"]["label"][[0, 2]].tolist()
    assert objects["difficult"].numpy().tolist() == [True, True]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3), "float32"), "must be uint8, not float32"),
        (np.zeros((4, 4, 1), "uint8"), r"must have shape \(height, width, 3\)"),
        (np.zeros((1, 4, 4, 3), "uint8"), r"must have shape \(height, width, 3\)"),
    ],
)
def test_other_images_are_refused(image, words):
    with pytest.raises(ValueError, match=words):
        parse_objects(make_example(np.random.default_rng(0)) | {"image": image})


def objects_of(*boxes, labels=None):
    return {
        "boxes": tf.constant(boxes, tf.float32),
        "labels": tf.constant(labels or range(len(boxes)), tf.int64),
        "difficult": tf.zeros(len(boxes), tf.bool),
    }


def test_a_picture_is_fitted_into_a_frame():
    image, objects = letterbox(np.ones((60, 80, 3), "float32"), objects_of([0, 0, 1, 1]), (96, 96))
    assert image.shape == (96, 96, 3)
    np.testing.assert_allclose(image[12:84], 1, atol=1e-6)
    np.testing.assert_array_equal(np.unique(np.r_[image[:12], image[84:]]), [0.5])
    assert objects["boxes"].numpy().tolist() == [[0, 0.125, 1, 0.875]]
    image, objects = letterbox(np.ones((80, 20, 3), "float32"), objects_of([0, 0, 1, 1]), (40, 80))
    np.testing.assert_allclose(image[:, 35:45], 1, atol=1e-6)
    np.testing.assert_array_equal(np.unique(np.c_[image[:, :35], image[:, 45:]]), [0.5])
    assert objects["boxes"].numpy().tolist() == [[35 / 80, 0, 45 / 80, 1]]
    with pytest.raises(ValueError, match="one image"):
        letterbox(np.ones((1, 8, 8, 3), "float32"), objects_of([0, 0, 1, 1]), (96, 96))


@few
@given(*[st.integers(8, 90)] * 2, *[st.sampled_from([32, 64, 96])] * 2)
def test_boxes_come_back_from_the_frame(height, width, frame_height, frame_width):
    size = (frame_height, frame_width)
    boxes = [[0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1], [0.5, 0, 0.6, 0.1]]
    picture = np.zeros((height, width, 3), "float32")
    _, objects = letterbox(picture, objects_of(*boxes), size)
    assert objects["labels"].numpy().tolist() == [0, 1, 2]
    again = unletterbox_boxes(objects["boxes"], (height, width), size)
    np.testing.assert_allclose(again, boxes, rtol=0, atol=1e-5)


# --- changes at random ----------------------------------------------------------------------------

SIDES = np.array([48, 64])  # height and width
CHANGES = {
    "flip": flip_objects,
    "jitter": jitter_objects,
    "far": functools.partial(jitter_objects, scale=(0.5, 2.5), stretch=2.0, shift=0.6),
    "both": lambda *given: jitter_objects(*flip_objects(*given), given[-1]),
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def painted(random, n=6):
    """Return n black images with a white rectangle each, and its box, and one of padding."""
    low = random.integers(0, SIDES - 12, (n, 2))
    high = low + random.integers(8, SIDES - low + 1, (n, 2))
    images = np.zeros((n, *SIDES, 3), "float32")
    for image, (y1, x1), (y2, x2) in zip(images, low, high, strict=True):
        image[y1:y2, x1:x2] = 1
    boxes = np.concatenate([low[:, ::-1] / SIDES[::-1], high[:, ::-1] / SIDES[::-1]], axis=1)
    both = np.stack([np.zeros((n, 4)), boxes], axis=1).astype("float32")
    labels = np.stack([np.full(n, -1), np.arange(n)], axis=1)
    return images, {"boxes": both, "labels": labels, "difficult": np.zeros((n, 2), bool)}


def seen(image):
    """Return the box, in pixels, around all that is nearly white; None where nothing is."""
    rows, columns = np.nonzero(image[:, :, 0] > 0.75)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@every_change
@few
@given(st.integers(0, 2**32 - 1), seeds)
def test_boxes_go_where_their_pixels_go(change, number, seed):
    images, objects = painted(np.random.default_rng(number))
    changed, found = change(images, objects, seed)
    assert changed.shape == images.shape
    assert changed.dtype == tf.float32
    boxes, labels = found["boxes"].numpy(), found["labels"].numpy()
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (labels[:, 0] == -1).all()
    assert not boxes[labels < 0].any()
    for image, box, label in zip(changed.numpy(), boxes[:, 1], labels[:, 1], strict=True):
        visible = seen(image)
        if label < 0:
            assert visible is None  # dropped only what has left the image
        elif (box[2:] - box[:2] > 4 / SIDES[::-1]).all():
            np.testing.assert_allclose(box * np.tile(SIDES[::-1], 2), visible, atol=1.5)


@few
@given(st.integers(0, 2**32 - 1), seeds)
def test_to_flip_twice_changes_nothing(number, seed):
    images, objects = painted(np.random.default_rng(number))
    once, flipped = flip_objects(images, objects, seed, probability=1.0)
    np.testing.assert_array_equal(once, images[:, :, ::-1])
    assert not (flipped["labels"].numpy()[:, 1] < 0).any()
    twice, again = flip_objects(once, flipped, seed, probability=1.0)
    np.testing.assert_array_equal(twice, images)
    np.testing.assert_allclose(again["boxes"], objects["boxes"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(again["labels"], objects["labels"])


@every_change
def test_a_single_image_is_changed_as_a_batch_of_one(change):
    images, objects = painted(np.random.default_rng(0), n=1)
    for seed in range(5):
        batch, found = change(images, objects, (seed, 0))
        alone = {name: values[0] for name, values in objects.items()}
        image, own = change(images[0], alone, (seed, 0))
        np.testing.assert_array_equal(image, batch[0])
        np.testing.assert_array_equal(own["boxes"], found["boxes"][0])
        np.testing.assert_array_equal(own["labels"], found["labels"][0])


@pytest.mark.parametrize("change", [flip_objects, jitter_objects])
def test_each_image_is_changed_with_the_probability(change):
    images, objects = painted(np.random.default_rng(0), n=60)
    same, found = change(images, objects, (1, 2), probability=0.0)
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(found["boxes"], objects["boxes"])
    changed, _ = change(images, objects, (1, 2), probability=0.5)
    moved = np.any(changed != images, axis=(1, 2, 3))
    assert 10 < moved.sum() < 50
    with pytest.raises(ValueError, match="probability must lie"):
        change(images, objects, (1, 2), probability=1.5)


def test_an_object_is_gone_when_too_little_of_it_is_left():
    """Everything moves up and left by half the image: a quarter of the first box is left."""
    image = np.zeros((8, 8, 3), "float32")
    objects = objects_of([0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1])
    half = functools.partial(jitter_objects, scale=(1, 1), stretch=1.0, shift=0.5)
    for min_visible, labels in ((0.0, [0, -1, 2]), (0.2, [0, -1, 2]), (0.3, [-1, -1, 2])):
        with always(LOWEST):
            moved, found = half(image, objects, (0, 0), min_visible=min_visible)
        assert found["labels"].numpy().tolist() == labels
        expected = [[0, 0, 0.25, 0.25], [0] * 4, [0, 0, 0.5, 0.5]]
        expected[0] = expected[0] if labels[0] == 0 else [0] * 4
        np.testing.assert_allclose(found["boxes"], expected, atol=1e-6)
    np.testing.assert_allclose(moved[:4, :4], 0, atol=1e-6)
    np.testing.assert_allclose(moved[5:], 0.5, atol=1e-6)  # row 4 is half outside


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": (0, 1)}, "scale must be positive"),
        ({"scale": (2, 1)}, "scale: no range from 2 to 1"),
        ({"stretch": 0.5}, "stretch must be at least 1"),
        ({"shift": -0.1}, "no range"),
        ({"min_visible": 1.0}, "min_visible must lie"),
    ],
)
def test_jitter_without_sense_is_refused(options, words):
    images, objects = painted(np.random.default_rng(0))
    with pytest.raises(ValueError, match=words):
        jitter_objects(images, objects, (0, 0), **options)


def test_a_change_of_images_alone_can_stand_among_the_others():
    images, objects = painted(np.random.default_rng(0))
    changed, same = on_images(color)(images, objects, (0, 1))
    assert same is objects
    np.testing.assert_array_equal(changed, color(images, (0, 1)))


# --- batches --------------------------------------------------------------------------------------


def make_examples(numbers=(3, 0, 5, 1, 2)):
    """Return a data set of images of different sizes with so many objects each."""
    random = np.random.default_rng(0)
    made = [make_example(random, 40 + 4 * n, 70 - 5 * n, n) for n in numbers]
    signature = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "objects": {
            "bbox": tf.TensorSpec([None, 4], tf.float32),
            "label": tf.TensorSpec([None], tf.int64),
        },
    }
    examples = tf.data.Dataset.from_generator(lambda: iter(made), output_signature=signature)
    return examples.apply(tf.data.experimental.assert_cardinality(len(made)))


def test_batches_are_framed_and_padded():
    batches = list(object_batches(make_examples(), (64, 96), batch_size=3))
    assert [images.shape for images, _ in batches] == [(3, 64, 96, 3), (2, 64, 96, 3)]
    assert [objects["boxes"].shape for _, objects in batches] == [(3, 5, 4), (2, 2, 4)]
    counts = [(objects["labels"].numpy() >= 0).sum(axis=1).tolist() for _, objects in batches]
    assert counts == [[3, 0, 5], [1, 2]]
    for images, objects in batches:
        assert images.dtype == tf.float32
        assert ((images >= 0) & (images <= 1)).numpy().all()
        there = objects["labels"].numpy() >= 0
        np.testing.assert_array_equal(box_area(objects["boxes"]).numpy() > 0, there)


def test_batches_are_shuffled_and_changed_anew_in_every_epoch():
    augment = [on_images(color), flip_objects, jitter_objects]
    sizes = [(32, 32), (64, 64), (96, 96)]

    def epochs():
        keras.utils.set_random_seed(0)
        batches = object_batches(make_examples(), (64, 64), 2, True, augment, 1, sizes)
        return [(i.numpy(), o["labels"].numpy()) for _ in range(4) for i, o in batches]

    first = epochs()
    for (images, labels), (same, own) in zip(first, epochs(), strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, own)
        assert ((images >= 0) & (images <= 1)).all()
    seen_sizes = {images.shape[1:3] for images, _ in first}
    assert len(seen_sizes) > 1
    assert seen_sizes <= set(sizes)
    assert len({str([labels.tolist() for _, labels in first[k : k + 3]]) for k in (0, 3, 6, 9)}) > 1


def test_pictures_keep_the_detail_of_the_largest_size():
    large, _ = next(iter(object_batches(make_examples(), (64, 64), 2)))
    scaled, _ = next(iter(object_batches(make_examples(), (16, 16), 2, sizes=[(64, 64)])))
    np.testing.assert_allclose(scaled, large, atol=1e-5)


def test_a_batch_without_any_object():
    ((images, objects),) = object_batches(make_examples((0, 0)), (32, 32), augment=[jitter_objects])
    assert images.shape == (2, 32, 32, 3)
    assert objects["boxes"].shape == (2, 0, 4)
    with pytest.raises(ValueError, match="no examples"):
        object_batches(make_examples(()), (32, 32))


# --- data sets ------------------------------------------------------------------------------------


def load(name, split):
    """Return the examples of a split as arrays, pictures as they are stored, and the classes."""
    folder = data.tfds_dir(name)
    raw = {"image": tfds.decode.SkipDecoding()}
    examples, info = tfds.load(name, split=split, data_dir=folder, decoders=raw, with_info=True)
    return list(tfds.as_numpy(examples)), info.features["objects"]["label"].names


def test_digit_scenes_are_made_without_network(offline):
    names = set()
    for split, n in (("train", 600), ("validation", 50), ("test", 100)):
        examples, classes = load("digit_scenes", split)
        assert classes == ["0", "1", "2"]
        assert len(examples) == n
        objects = [example["objects"] for example in examples]
        assert {len(one["label"]) for one in objects} == {1, 2, 3}
        labels = np.concatenate([one["label"] for one in objects])
        assert (np.bincount(labels, minlength=3) > 0.25 * len(labels)).all()
        names |= {example["image/filename"] for example in examples}
    assert len(names) == 750
    image = tf.io.decode_jpeg(examples[0]["image"])
    _, objects = parse_objects({"image": image, "objects": examples[0]["objects"]})
    assert len(objects["labels"]) == len(examples[0]["objects"]["label"])
    assert {key.split("/")[0] for key in data.used()} >= {"mnist_sample"}
    assert not any(key.startswith("digit_scenes") for key in data.used())


def scene(name):
    return data._code(f"scenes:{name}")


def test_boxes_of_a_scene_are_tight_and_apart():
    side, random = scene("SIDE"), np.random.default_rng(0)
    digits = np.zeros((5, 28, 28), np.uint8)
    digits[:, 4:24, 10:18] = random.integers(128, 256, (5, 20, 8))
    make = scene("digit_scene")
    for seed in range(20):
        picture, boxes, chosen = make(digits, np.random.default_rng(seed))
        same, *_ = make(digits, np.random.default_rng(seed))
        np.testing.assert_array_equal(picture, same)
        assert picture.shape == (side, side, 3)
        assert 1 <= len(boxes) == len(set(chosen.tolist())) <= scene("MOST")
        assert ((boxes >= 0) & (boxes <= 1)).all()
        pixels = np.round(boxes * side).astype(int)
        covered = np.zeros((side, side), int)
        for x1, y1, x2, y2 in pixels:
            covered[y1:y2, x1:x2] += 1
        assert covered.max() == 1


def test_the_ink_of_a_digit_fills_its_box():
    digit = np.zeros((28, 28), np.uint8)
    digit[3:25, 7:20] = np.random.default_rng(0).integers(100, 256, (22, 13))
    for height in (20, 28, 44):
        ink = scene("scaled_ink")(digit, height)
        for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):
            assert edge.max() >= 0.25
        assert ink.shape[0] == pytest.approx(22 * height / 28, abs=2)
        assert ink.shape[1] == pytest.approx(13 * height / 28, abs=2)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Return a function that skips without the mirror's file of a data set, and else its place."""
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LABS_MIRROR", str(MIRROR))

    def place(name):
        if not (MIRROR / name / f"{name}.zip").exists():
            pytest.skip(f"no mirror with {name}")
        return zipfile.Path(data.path(name))

    return place


def test_blood_cells_are_whole(mirror):
    root = mirror("bccd")
    counts, pictures = [], []
    for split in ("train", "validation", "test"):
        examples, classes = load("bccd", split)
        assert classes == ["RBC", "WBC", "Platelets"]
        labels = np.concatenate([example["objects"]["label"] for example in examples])
        counts.append([len(examples), *np.bincount(labels).tolist()])
        pictures += [example["image/filename"].decode() for example in examples]
    assert counts == [[205, 2381, 214, 209], [87, 967, 87, 83], [72, 805, 71, 69]]
    assert len(set(pictures)) == 364
    xml, images = root / "Annotations", root / "JPEGImages"
    annotations, problems = read_voc(xml, images, ("RBC", "WBC", "Platelets"))
    assert len(annotations) == 364
    assert sum(len(annotation["labels"]) for annotation in annotations) == 4888 - 2
    places = [(Path(problem.file).name, problem.line) for problem in problems]
    assert places == [("BloodImage_00338.xml", 166), ("BloodImage_00343.xml", 58)]
    assert all("no area" in problem.reason for problem in problems)


def test_the_list_of_the_blood_cells_is_complete():
    listed = originals._read(DATASETS / "originals" / "bccd.csv")
    assert len({one.member for one in listed}) == len(listed) == 732
    assert all(one.member == one.path for one in listed)
    folders = Counter(one.member.split("/")[0] for one in listed)
    assert folders == {"Annotations": 364, "JPEGImages": 364, "ImageSets": 4}
    assert sum(one.bytes for one in listed) == 8_800_938


def test_the_mirror_of_the_blood_cells_holds_the_originals(mirror):
    root = mirror("bccd")
    assert fetch.right(MIRROR / "bccd" / "bccd.zip", **data.dataset("bccd")["files"]["bccd.zip"])
    for one in originals._read(DATASETS / "originals" / "bccd.csv"):
        assert facts((root / one.member).read_bytes()) == {
            "bytes": one.bytes,
            "sha256": one.sha256,
        }


def test_blood_cells_come_by_the_public_route(course, server, monkeypatch):
    entry = tomllib.loads(MANIFEST.read_text("utf-8"))["bccd"]
    (source,) = entry["sources"]
    text = XML.replace("80<", "640<").replace("60<", "480<").replace("dog", "WBC")
    members = {f"ImageSets/Main/{part}.txt": f"{part}\n".encode() for part in ("train", "val")}
    members |= {"ImageSets/Main/test.txt": b"test\n"}
    for part in ("train", "val", "test"):
        annotation = text.replace("a.jpg", f"{part}.jpg").replace(">cat<", ">Platelets<")
        members[f"Annotations/{part}.xml"] = annotation.encode()
        members[f"JPEGImages/{part}.jpg"] = jpeg(640, 480)
    for member, content in members.items():
        server.pages[f"/{source['repo'].replace('@', '/')}/BCCD/{member}"] = content
    (data.DATASETS / "originals").mkdir()
    with (data.DATASETS / "originals" / "bccd.csv").open("w", newline="") as lines:
        rows = csv.DictWriter(lines, originals.Original._fields)
        rows.writeheader()
        for member, content in members.items():
            rows.writerow({"member": member, "path": member, **facts(content)})
    shutil.copy(DATASETS / "voc.py", data.DATASETS)
    entry["files"] = {"bccd.zip": facts(b"of somebody else")}
    (data.DATASETS / "manifest.toml").write_text(tomlkit.dumps({"bccd": entry}))
    data.manifest.cache_clear()
    monkeypatch.setattr(data, "RAW", server.url)
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        ((example,), _) = load("bccd", split)
        assert example["image/filename"].decode() == f"{part}.jpg"
        assert example["image"] == members[f"JPEGImages/{part}.jpg"]
        assert example["objects"]["label"].tolist() == [2, 1]
        expected = [[6 / 480, 8 / 640, 30 / 480, 40 / 640], [0, 0, 1, 1]]
        np.testing.assert_allclose(example["objects"]["bbox"], expected, atol=1e-6)


def test_real_voc_is_read_and_judged(mirror):
    mirror("voc_sample")
    examples, classes = load("voc_sample", "test")
    assert len(examples) == 100
    assert len(classes) == 20
    assert sum(len(example["objects"]["label"]) for example in examples) == 273
    truths = []
    for example in examples:
        image = np.asarray(PIL.Image.open(io.BytesIO(example["image"])))
        _, objects = parse_objects({"image": image, "objects": example["objects"]})
        truths.append({name: values.numpy() for name, values in objects.items()})
    assert sum(objects["difficult"].sum() for objects in truths) == 38
    perfect = [objects | {"scores": np.ones(len(objects["labels"]))} for objects in truths]
    for points in (11, 101, None):
        table = average_precisions(judge_detections(truths, perfect), 20, points)
        np.testing.assert_allclose(table, 1)


def test_photos_that_are_not_ours_to_pass_on_have_no_source(offline):
    with pytest.raises(data.DataError, match="no public source has it") as caught:
        data.tfds_dir("voc_sample")
    assert "LABS_MIRROR" in str(caught.value)


def test_voc_is_left_to_tensorflow_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "answers", lambda _url: False)
    with pytest.raises(data.DataError, match=r"voc/2007 cannot be fetched: no answer from .+"):
        data.tfds_dir("voc/2007")


def test_our_classes_of_voc_are_the_official_ones(tmp_path):
    official = tfds.builder("voc/2007", data_dir=tmp_path).info.features["objects"]["label"].names
    assert list(data._code("voc:VocSample").CLASSES) == official


def test_boxes_are_all_that_preprocessing_takes_from_labkit():
    text = Path(preprocessing.__file__).read_text("utf-8")
    assert [line for line in text.splitlines() if "labkit" in line and "import" in line] == [
        "from labkit.boxes import box_area, clip_boxes, flip_boxes, move_boxes, swap_xy"
    ]
