"""The detector that lab 12 defines: its network, weight files, loss, training and detections."""

import os
import types
from pathlib import Path

from labkit import data
from labkit.boxes import ANCHORS, STRIDES, average_precisions, encode_boxes, judge_detections
from labkit.paths import ROOT
from labkit.results import committed, number
from preprocessing import letterbox, object_batches
from tools import cells

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

LAB = "12_object_detection"
MIRROR = Path(os.environ.get("LABS_MIRROR", ROOT.parent / "shared" / "data"))
SIZE = (64, 96)
OBJECTS = {  # the third image is empty
    "boxes": np.array(
        [
            [[0.1, 0.2, 0.4, 0.9], [0.5, 0.5, 0.6, 0.7]],
            [[0.3, 0.1, 0.9, 0.6], [0, 0, 0, 0]],
            [[0, 0, 0, 0], [0, 0, 0, 0]],
        ],
        "float32",
    ),
    "labels": np.array([[0, 2], [1, -1], [-1, -1]]),
    "difficult": np.zeros((3, 2), bool),
}


@pytest.fixture(scope="module")
def names():
    """Return what the lab defines as the dict in which its functions look names up."""
    return cells.load(LAB)


@pytest.fixture(scope="module")
def lab(names):
    return types.SimpleNamespace(**names)


def make(lab, n_classes=3, seed=0):
    """Return the smallest Darknet with YOLO's neck, an example of the lab's own code."""
    keras.utils.set_random_seed(seed)
    return lab.make_yolo(lab.darknet(1 / 16, (1, 1, 1, 1, 1)), n_classes, width=1 / 16)


@pytest.fixture(scope="module")
def small(lab):
    return make(lab)


def some(objects, chosen):
    return {name: values[chosen] for name, values in objects.items()}


# --- the network ----------------------------------------------------------------------------------

# Output channels of every convolution, in the order of the authors' yolov3.cfg.
DARKNET = [32, 64, 32, 64, 128, *[64, 128] * 2, 256, *[128, 256] * 8, 512, *[256, 512] * 8, 1024,
           *[512, 1024] * 4]  # fmt: skip
NECK = [*[512, 1024] * 3, 255, 256, *[256, 512] * 3, 255, 128, *[128, 256] * 3, 255]


def parameters(pairs):
    """Return the parameters of normalised convolutions: pairs (weights, channels)."""
    return sum(weights + 4 * channels for weights, channels in pairs)


def test_published_network_is_that_of_the_paper(lab):
    published = lab.make_yolo(lab.darknet(), 80)
    body = published.get_layer("backbone")
    layers = [layer for layer, _ in lab.conv_layers(published)]
    assert [layer.filters for layer in layers] == DARKNET + NECK
    assert body.count_params() == 40_620_640
    assert published.count_params() == 62_001_757
    assert lab.make_yolo(body, 20).count_params() == 61_678_657
    kernels = [np.prod(layer.kernel.shape) for layer in layers[:52]]
    assert body.count_params() == parameters(zip(kernels, DARKNET, strict=True))
    outputs = published.compute_output_spec(keras.KerasTensor((1, 416, 416, 3)))
    assert [output.shape for output in outputs] == [(1, n, n, 3, 85) for n in (13, 26, 52)]


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 64)])
def test_any_size_that_32_divides(small, size):
    outputs = small.look(tf.zeros((2, *size, 3)))
    for stride, output in zip(STRIDES, outputs, strict=True):
        assert output.shape == (2, size[0] // stride, size[1] // stride, 3, 8)
        assert output.dtype == tf.float32


def test_other_sizes_are_refused(small):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        small.look(tf.zeros((1, 48, 64, 3)))


def test_new_network_expects_nothing(lab):
    images = tf.random.stateless_uniform((4, *SIZE, 3), seed=(1, 2))
    for output in make(lab)(images, training=True):
        assert np.mean(tf.sigmoid(output[..., 4])) < 0.1


def test_saved_network_is_the_same(small, tmp_path):
    images = tf.random.stateless_uniform((1, *SIZE, 3), seed=(1, 2))
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded.anchors, small.anchors)
    for a, b in zip(loaded.look(images), small.look(images), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_receptive_field_is_what_the_gradient_reaches(lab):
    body = lab.darknet(1 / 16, (1, 1, 1, 1, 1))
    image = tf.random.stateless_uniform((1, 128, 128, 3), seed=(1, 2))
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = tf.reduce_sum(body(image)[0][0, 8, 8])
    reached = np.any(tape.gradient(value, image)[0] != 0, axis=-1)
    field = lab.receptive_field(lab.darknet_steps((1, 1, 1, 1, 1), 3))
    assert field == reached.any(axis=0).sum() == reached.any(axis=1).sum()


# --- weight files ---------------------------------------------------------------------------------


def test_weight_file_comes_back_bit_for_bit(lab, tmp_path):
    one, other = make(lab, seed=1), make(lab, seed=2)
    random = np.random.default_rng(0)
    one.set_weights([random.normal(size=w.shape).astype("float32") for w in one.get_weights()])
    file = tmp_path / "one.weights"
    lab.write_darknet(one, file, seen=2**40)
    assert file.stat().st_size == 20 + 4 * one.count_params()
    assert lab.read_darknet(other, file) == 2**40
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    lab.write_darknet(other, tmp_path / "other.weights", seen=2**40)
    assert (tmp_path / "other.weights").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 0), (0, 2, 5), (1, 0, 0)])
def test_every_number_lands_where_darknet_has_it(lab, tmp_path, version):
    network = make(lab)
    n = network.count_params()
    header = np.array(version, "<i4").tobytes()
    header += np.array([77], "<i8" if version > (0, 1, 9) else "<i4").tobytes()
    file = tmp_path / "counted.weights"
    file.write_bytes(header + np.arange(n, dtype="<f4").tobytes())
    assert lab.read_darknet(network, file) == 77
    (first, norm), *_, (last, none) = lab.conv_layers(network)
    width = first.filters
    for i, values in enumerate((norm.beta, norm.gamma, norm.moving_mean, norm.moving_variance)):
        np.testing.assert_array_equal(values, width * i + np.arange(width))
    for h, w, c, o in np.ndindex(*first.kernel.shape):  # the file runs over out, in, height, width
        assert first.kernel[h, w, c, o] == 4 * width + ((o * 3 + c) * 3 + h) * 3 + w
    assert none is None
    begin = n - last.count_params()
    np.testing.assert_array_equal(last.bias, begin + np.arange(last.filters))
    assert last.kernel[0, 0, -1, -1] == n - 1


@pytest.mark.parametrize("missing", [1, -1])
def test_file_of_another_network_is_refused(lab, small, tmp_path, missing):
    before = small.get_weights()
    file = tmp_path / "other.weights"
    file.write_bytes(bytes(20 + 4 * (small.count_params() - missing)))
    file.write_bytes(np.array([0, 2, 0], "<i4").tobytes() + file.read_bytes()[12:])
    with pytest.raises(ValueError, match=f"the network needs {small.count_params():,}"):
        lab.read_darknet(small, file)
    for a, b in zip(before, small.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_official_file_is_looked_for_and_checked(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABS_MIRROR", raising=False)
    assert lab.official_file() is None
    monkeypatch.setenv("LABS_MIRROR", str(tmp_path))
    assert lab.official_file() is None
    file = tmp_path / "weights" / lab.OFFICIAL
    file.parent.mkdir()
    file.write_bytes(b"half of it")
    with pytest.raises(ValueError, match="damaged"):
        lab.official_file()


def test_everything_but_the_outputs_is_adopted(lab):
    ours, theirs = make(lab, n_classes=2, seed=1), make(lab, n_classes=5, seed=2)
    before = ours.get_layer("conv_59").get_weights()
    lab.adopt(ours, theirs)
    for (a, a_norm), (b, _) in zip(lab.conv_layers(ours), lab.conv_layers(theirs), strict=True):
        assert np.array_equal(a.kernel, b.kernel) == (a_norm is not None), a.name
    np.testing.assert_array_equal(ours.get_layer("conv_59").get_weights()[0], before[0])


# --- the loss -------------------------------------------------------------------------------------


def random_outputs(n_images=3, size=SIZE, seed=0):
    random = np.random.default_rng(seed)
    grids = [(size[0] // stride, size[1] // stride) for stride in STRIDES]
    return [tf.constant(random.normal(size=(n_images, *grid, 3, 8)), tf.float32) for grid in grids]


def perfect(lab, objects=OBJECTS, size=SIZE):
    return [output.numpy() for output in lab.perfect_outputs(objects, ANCHORS, size, 3)]


def loss(lab, outputs, objects=OBJECTS):
    return lab.yolo_loss(objects, outputs, ANCHORS, SIZE).numpy()


def only_place(outputs):
    """Return the index (scale, row, column, anchor) of the object of the second image."""
    found = [
        (scale, *place)
        for scale, output in enumerate(outputs)
        for place in np.argwhere(output[1, ..., 4] > 0)
    ]
    (place,) = found
    return place


def test_loss_of_a_perfect_prediction_is_about_zero(lab):
    assert (loss(lab, perfect(lab)) < 1e-3).all()


@pytest.mark.parametrize(("number", "part"), [(0, 0), (2, 0), (4, 1), (6, 2)])
def test_each_fault_is_seen_by_its_part(lab, number, part):
    outputs = perfect(lab)
    scale, row, column, anchor = only_place(outputs)
    outputs[scale][1, row, column, anchor, number] -= 1 if number < 4 else 40
    losses = loss(lab, outputs)
    assert losses[1, part] > 0.05
    assert losses.sum() == pytest.approx(losses[1, part], abs=1e-2)


def test_errors_of_small_boxes_weigh_more(lab):
    outputs = perfect(lab)
    scale, row, column, anchor = only_place(outputs)
    outputs[scale][1, row, column, anchor, 2] += 0.5
    area = 0.6 * 0.5
    assert loss(lab, outputs)[1, 0] == pytest.approx(0.25 * (2 - area), abs=1e-3)


def test_a_false_object_costs_and_a_superfluous_one_does_not(lab):
    outputs = perfect(lab)
    scale, row, column, anchor = only_place(outputs)
    other = (anchor + 1) % 3
    place = np.zeros((1, *outputs[scale].shape[1:4], 4), "float32")
    place[0, row, column, other] = OBJECTS["boxes"][1, 0]
    code = encode_boxes(place, ANCHORS[scale], SIZE)[0, row, column, other].numpy()
    superfluous = outputs[scale][1, row, column, other]
    superfluous[:2], superfluous[2:4], superfluous[4] = (
        np.log(code[:2] / (1 - code[:2])),
        code[2:],
        9,
    )
    assert loss(lab, outputs).sum() < 1e-2
    superfluous[2:4] = -3.0  # a tiny box: it overlaps with nothing
    assert loss(lab, outputs)[1, 1] == pytest.approx(9, abs=0.1)


def test_an_image_has_the_same_loss_alone(lab):
    outputs = random_outputs()
    together = loss(lab, outputs)
    for image in range(3):
        chosen = slice(image, image + 1)
        alone = loss(lab, [output[chosen] for output in outputs], some(OBJECTS, chosen))
        np.testing.assert_allclose(alone, together[chosen], rtol=1e-4)


def test_padding_changes_nothing(lab):
    widths = {"boxes": ((0, 0), (0, 5), (0, 0)), "labels": ((0, 0), (0, 5))}
    padded = {
        name: np.pad(OBJECTS[name], width, constant_values=0 if name == "boxes" else -1)
        for name, width in widths.items()
    }
    outputs = random_outputs()
    np.testing.assert_allclose(loss(lab, outputs, padded), loss(lab, outputs), rtol=1e-5)


@pytest.mark.parametrize("n", [0, 2])
def test_gradients_of_empty_images_are_finite(lab, n):
    objects = {"boxes": tf.zeros((2, n, 4)), "labels": -tf.ones((2, n), tf.int64)}
    outputs = [100 * output[:2] for output in random_outputs()]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses = lab.yolo_loss(objects, outputs, ANCHORS, SIZE)
    for gradient in tape.gradient(losses, outputs):
        assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(losses[:, 0], 0)
    np.testing.assert_array_equal(losses[:, 2], 0)
    assert np.isfinite(losses).all()


def test_loss_falls_where_the_gradient_points(lab):
    outputs = random_outputs()
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total = tf.reduce_sum(lab.yolo_loss(OBJECTS, outputs, ANCHORS, SIZE))
    gradients = tape.gradient(total, outputs)
    moved = [output - 1e-3 * gradient for output, gradient in zip(outputs, gradients, strict=True)]
    assert loss(lab, moved).sum() < total


# --- detections -----------------------------------------------------------------------------------


def knowing(outputs, anchors=ANCHORS):
    """Return what `detect` and `evaluate` need of a network, with these outputs for any image."""
    shapes = [types.SimpleNamespace(shape=np.shape(output)) for output in outputs]
    return types.SimpleNamespace(look=lambda _: outputs, anchors=anchors, outputs=shapes)


def test_perfect_outputs_become_their_objects(lab):
    found = lab.detect(knowing(perfect(lab)), np.zeros((3, *SIZE, 3), "float32"))
    for image, detections in enumerate(found):
        real = OBJECTS["labels"][image] >= 0
        order = np.argsort(detections["labels"])
        assert detections["labels"][order].tolist() == OBJECTS["labels"][image][real].tolist()
        np.testing.assert_allclose(
            detections["boxes"][order], OBJECTS["boxes"][image][real], atol=1e-4
        )
        assert (detections["scores"] > 0.99).all()


def test_perfect_network_has_map_1(lab):
    batch = np.zeros((3, *SIZE, 3), "float32"), OBJECTS
    result = lab.evaluate(knowing(perfect(lab)), [batch])
    assert lab.map_50(result) == pytest.approx(1)
    assert np.nanmin(result.precisions) == pytest.approx(1)
    assert len(result.truths) == len(result.detections) == 3
    blind = [np.full_like(output, -20) for output in perfect(lab)]
    assert lab.map_50(lab.evaluate(knowing(blind), [batch])) == 0


def test_hits_misses_and_false_alarms_are_told_apart(lab):
    objects = some(OBJECTS, 0)
    detections = {
        "boxes": np.array([[0.1, 0.2, 0.4, 0.8], [0.7, 0.7, 0.9, 0.9], [0.5, 0.5, 0.6, 0.7]]),
        "scores": np.array([0.9, 0.8, 0.4]),  # the last one is right, but not sure enough
        "labels": np.array([0, 1, 2]),
    }
    marks = lab.judged_marks(objects, detections, ["a", "b", "c"])
    assert [(mark.name, mark.kind) for mark in marks] == [
        ("a", "hit"), ("b", "false alarm"), ("c", "missed")
    ]  # fmt: skip


def test_difficult_objects_are_neither_hit_nor_missed(lab):
    objects = some(OBJECTS, 0) | {"difficult": np.array([True, True])}
    detections = {
        "boxes": OBJECTS["boxes"][0, :1], "scores": np.array([0.9]), "labels": np.array([0])
    }  # fmt: skip
    assert lab.judged_marks(objects, detections, ["a", "b", "c"]) == []


@pytest.mark.parametrize("shape", [(40, 120), (120, 40)])
def test_boxes_come_back_to_a_picture_of_any_shape(lab, shape):
    truth = np.array([[0.25, 0.3, 0.6, 0.8]], "float32")
    objects = {"boxes": truth, "labels": tf.constant([1]), "difficult": tf.constant([False])}
    picture = np.zeros((*shape, 3), "float32")
    _, framed = letterbox(picture, objects, SIZE)
    batch = {name: np.asarray(values)[np.newaxis] for name, values in framed.items()}
    found = lab.detect_in_picture(knowing(perfect(lab, batch)), picture, SIZE)
    np.testing.assert_allclose(found["boxes"], truth, atol=1e-3)
    assert found["labels"].tolist() == [1]


def test_a_picture_may_be_turned_and_grey(lab, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    PIL.Image.new("L", (30, 20), 255).save(tmp_path / "photo.jpg", exif=exif)
    picture = lab.read_picture(tmp_path / "photo.jpg")
    assert picture.shape == (30, 20, 3)
    assert picture.min() > 0.95


def test_class_names(lab):
    assert (len(set(lab.COCO)), len(set(lab.VOC))) == (80, 20)
    assert (lab.COCO[0], lab.COCO[11], lab.COCO[79]) == ("person", "stop sign", "toothbrush")


# --- training -------------------------------------------------------------------------------------


@pytest.fixture
def training(names, monkeypatch, tmp_path):
    """Return the lab with tiny phases and a work folder of its own."""
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    phases = [names["Phase"](3, 4, 1e-3, None), names["Phase"](2, 4, 1e-3, [(32, 32), (64, 64)])]
    tiny = {"PHASES": phases, "SIZE": (64, 64), "SIZES": None, "EVERY": 2, "AUGMENT": ()}
    for name, value in tiny.items():
        monkeypatch.setitem(names, name, value)
    return names


def squares(n=8):
    """Return images with one bright square each, as TensorFlow Datasets would deliver them."""
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (n, 64, 64, 3)).astype("uint8")
    corners = random.integers(0, 40, (n, 2))
    for image, (y, x) in zip(images, corners, strict=True):
        image[y : y + 20, x : x + 20] = 255
    boxes = (np.concatenate([corners, corners + 20], axis=1) / 64).astype("float32")
    objects = {"bbox": boxes[:, np.newaxis], "label": np.zeros((n, 1), "int64")}
    return tf.data.Dataset.from_tensor_slices({"image": images, "objects": objects})


def train(names, number, network, learned=False):
    batches = object_batches(squares(), (64, 64), 4)
    return names["train_phase"](number, network, learned, squares(), batches)


def test_training_goes_on_where_it_was_stopped(training, lab, monkeypatch, capsys):
    kind = training["ValidationMAP"]

    class Killed(kind):
        """Ends the program after the second epoch, before that is stored."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt
            super().on_epoch_end(epoch, logs)

    Killed.__name__ = kind.__name__  # the kinds of callbacks belong to the key
    monkeypatch.setitem(training, "ValidationMAP", Killed)
    with pytest.raises(KeyboardInterrupt):
        train(training, 1, make(lab, n_classes=1))
    monkeypatch.setitem(training, "ValidationMAP", kind)
    network = make(lab, n_classes=1)
    history = train(training, 1, network)
    assert "goes on after epoch 1 of 3" in capsys.readouterr().out
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ["loss", "box", "objectness", "classes", "val_map_50", "val_map_50_95"], 3
    )
    parts = history["box"][0] + history["objectness"][0] + history["classes"][0]
    assert parts == pytest.approx(history["loss"][0], rel=1e-4)
    assert history["val_map_50"][1] == history["val_map_50"][2]  # measured every second epoch


def test_what_has_learned_is_frozen_first_and_keeps_its_normalisation(training, lab):
    network = make(lab, n_classes=1)
    body = network.get_layer("backbone")
    before = [values.numpy() for values in body.weights]
    train(training, 1, network, learned=True)
    for a, b in zip(before, body.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    history = train(training, 2, network, learned=True)  # at many sizes
    assert len(history["loss"]) == 2
    for a, values in zip(before, body.weights, strict=True):
        assert np.array_equal(a, values.numpy()) == ("norm" in values.path), values.path


# --- what was found -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "bars"),
    [("quick", {"map_50": 0.5}), ("standard", {"map_50": 0.8, "map_50_95": 0.45})],
)
def test_bars(profile, bars):
    metrics = committed(LAB, profile)["metrics"]
    for name, least in bars.items():
        assert number(metrics[name]) >= least


# --- the VOC path ---------------------------------------------------------------------------------


def test_pascal_voc_from_xml_to_map(lab, monkeypatch, tmp_path):
    if not (MIRROR / "voc_sample" / "voc_sample.zip").exists():
        pytest.skip("the sample of PASCAL VOC is not here (LABS_MIRROR)")
    monkeypatch.setenv("LABS_MIRROR", str(MIRROR))
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    (test,), info = tfds.load(
        "voc_sample", split=["test"], data_dir=data.tfds_dir("voc_sample"), with_info=True
    )
    assert info.features["objects"]["label"].names == lab.VOC
    batches = list(object_batches(test, (128, 160), 10))
    _, labels = lab.all_boxes(batches)
    assert (len(labels), len(set(labels.tolist()))) == (273, 20)
    images, objects = batches[0]
    network = make(lab, n_classes=20)
    losses = lab.yolo_loss(objects, network.look(images), ANCHORS, (128, 160))
    assert np.isfinite(losses).all()
    truths = [image for _, objects in batches for image in lab.one_by_one(objects)]
    found = [
        {name: image[name][image["labels"] >= 0] for name in ("boxes", "labels")}
        for image in truths
    ]
    found = [image | {"scores": np.ones(len(image["labels"]))} for image in found]
    precisions = average_precisions(judge_detections(truths, found), len(lab.VOC))
    assert np.nanmin(precisions) == pytest.approx(1)
