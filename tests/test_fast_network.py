"""Lab 5: the parts of its fast network, and what its studies found."""

import runpy

from labkit import results
from labkit.results import book, committed, number
from preprocessing import image_batches
from tools import cells

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

LAB = "05_initialization_and_batchnorm"


@pytest.fixture(scope="module")
def lab():
    return cells.load(LAB)


@pytest.fixture
def photos():
    return np.random.default_rng(0).random((64, 32, 32, 3), dtype="float32")


def test_fused_normalization_is_batch_normalization_without_gamma(lab, photos):
    ours = lab["FusedBatchNormalization"](momentum=0.8, epsilon=1e-3)
    keras_layer = keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-3, scale=False)
    for layer in (ours, keras_layer):
        layer.build(photos.shape)
    ours.beta.assign([0.1, -0.2, 0.3])
    keras_layer.beta.assign(8 * np.array([0.1, -0.2, 0.3]))
    for training in (True, False):  # the second time with the running mean of the first
        expected = keras_layer(photos, training=training)
        assert_allclose(ours(photos, training=training), expected, atol=1e-4)
    assert_allclose(ours.mean, keras_layer.moving_mean, atol=1e-5)
    # TensorFlow's running variance divides by n - 1
    assert_allclose(ours.variance, keras_layer.moving_variance, rtol=1e-4)


def test_shift_moves_64_times_as_far(lab, photos):
    layer = lab["FusedBatchNormalization"]()
    layer.build(photos.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(photos, training=True)) / (64 * 32 * 32)
    step = 0.01 * np.asarray(tape.gradient(loss, layer.beta))
    assert_allclose(8 * step, [0.64] * 3, rtol=1e-4)


def test_identity_start_passes_its_input_on(lab, photos):
    kernel = lab["identity_start"]((3, 3, 3, 5))
    out = keras.ops.conv(photos, kernel, padding="same")
    assert_allclose(out[..., :3], photos, atol=1e-5)
    assert float(keras.ops.std(out[..., 3:])) > 0


def test_whitened_patches_are_uncorrelated(lab):
    smooth = np.random.default_rng(1).random((40, 9, 9, 3), dtype="float32").cumsum(1).cumsum(2)
    smooth -= smooth.mean(axis=(0, 1, 2))
    kernel = lab["whitening_kernel"](smooth, epsilon=1e-8)
    out = np.asarray(keras.ops.conv(smooth, kernel)).reshape(-1, 24)
    assert_allclose(out[:, :12], -out[:, 12:], atol=1e-3)
    assert_allclose(out[:, :12].T @ out[:, :12] / len(out), np.eye(12), atol=0.05)


def test_a_mirrored_image_gets_the_same_answer(lab, photos):
    model = lab["make_fast"](photos, share=0.125)
    batches = [(photos, None)]
    mirrored = [(photos[:, :, ::-1], None)]
    two_views = lab["predict_views"](model, batches)
    assert_allclose(two_views, lab["predict_views"](model, mirrored), atol=1e-4)
    one_view = lab["predict_views"](model, batches, mirror=False)
    assert_allclose(one_view, model(photos), atol=1e-5)
    assert not np.allclose(one_view, two_views, atol=1e-4)


def test_network_is_saved_and_loaded(lab, photos, tmp_path):
    model = lab["make_fast"](photos, share=0.125)
    model.save(tmp_path / "fast.keras")
    loaded = keras.saving.load_model(tmp_path / "fast.keras")
    assert_allclose(loaded(photos), model(photos), atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_both_normalizations_of_the_study_have_the_same_settings(lab, photos, fused):
    model = lab["make_fast"](photos, share=0.125, fused=fused, shift_speed=1.0)
    own = lab["FusedBatchNormalization"] if fused else keras.layers.BatchNormalization
    found = [layer for layer in model.layers if isinstance(layer, own)]
    assert len(found) == 6
    assert {(layer.momentum, layer.epsilon) for layer in found} == {(0.8, 1e-5)}
    assert {len(layer.trainable_weights) for layer in found} == {1}  # beta alone
    assert {getattr(layer, "shift_speed", 1.0) for layer in found} == {1.0}


@pytest.mark.parametrize(
    "left_out",
    [{}, {"whiten": False}, {"identity": False}, {"fused": False}, {"shift_speed": 1.0}],
)
def test_each_network_of_the_study_learns_a_batch(lab, photos, left_out):
    keras.utils.set_random_seed(0)
    labels = tf.one_hot(np.arange(64) % 10, 10)
    batches = tf.data.Dataset.from_tensors((photos, labels)).repeat(15)
    assert int(batches.cardinality()) == 15
    model = lab["make_fast"](photos, share=0.125, name="toy", **left_out)
    batches = batches.apply(tf.data.experimental.assert_cardinality(15))
    history = lab["train_fast"](model, batches, 2, batch_size=64)
    lab["run"].forget("toy")
    assert history.history["loss"][1] < history.history["loss"][0]
    learned = {weight.path for weight in model.trainable_weights}
    assert any("stem" in path for path in learned) == ("whiten" in left_out)


def test_mean_of_the_weights_is_over_the_last_steps(lab, photos):
    batches = tf.data.Dataset.from_tensors((photos, np.eye(10)[np.arange(64) % 10])).repeat(75)
    batches = batches.apply(tf.data.experimental.assert_cardinality(75))
    optimizers = []
    for average in (True, False):
        model = lab["make_fast"](photos, share=0.0625, name="toy")
        lab["train_fast"](model, batches, 2, batch_size=64, average=average)
        lab["run"].forget("toy")
        optimizers.append(model.optimizer)
    assert [optimizer.use_ema for optimizer in optimizers] == [True, False]
    assert optimizers[0].ema_momentum == pytest.approx(1 - 1 / 5)  # 150 steps


def test_augmented_batches_keep_labels_and_range(lab, photos):
    examples = tf.data.Dataset.from_tensor_slices(
        {"image": (photos * 255).astype("uint8"), "label": np.arange(64) % 10}
    )
    images, labels = next(iter(lab["fast_batches"](examples, 64)))
    plain = sorted(np.argmax(y) for y in next(iter(image_batches(examples, 64)))[1])
    assert sorted(np.argmax(labels, axis=1)) == plain
    assert float(tf.reduce_min(images)) >= 0
    assert float(tf.reduce_max(images)) <= 1


def test_study_leaves_out_the_ideas_of_the_table():
    text = (cells.SOURCES / f"{LAB}.py").read_text(encoding="utf-8")
    table = text.split("# | idea | reason |\n# |---|---|\n")[1].split("\n#\n")[0]
    ideas = [line.split("|")[1].strip() for line in table.splitlines()]
    assert sum(idea.endswith("*") for idea in ideas) == 2  # not measured
    measured = {idea for idea in ideas if not idea.endswith("*")} - {"mirrored view"}
    without = runpy.run_path(str(cells.LABS / "studies" / "05_ideas.py"))["WITHOUT"]
    assert measured == set(without) - {"nothing"}


# --- what the studies found -----------------------------------------------------------------------


def test_fast_network_is_as_good_and_as_fast_as_promised(lab):
    rows = [row["metrics"] for row in results.study("05_fast")]
    assert [row["epochs"] for row in rows] == [lab["FAST_EPOCHS"]] * 3
    assert np.median([row["accuracy"] for row in rows]) >= 0.940
    assert np.median([row["seconds"] for row in rows]) <= 1500


def test_race_with_the_book_was_won():
    metrics = committed(LAB, "standard")["metrics"]
    assert number(metrics["accuracy_short"]) >= book(LAB)["accuracy_batchnorm"]


@pytest.mark.parametrize("name", ["accuracy_glorot", "accuracy_he", "accuracy_batchnorm"])
def test_book_is_reached(name):
    assert number(committed(LAB, "standard")["metrics"][name]) >= book(LAB)[name]


def test_small_weights_never_learn():
    accuracy = number(committed(LAB, "standard")["metrics"]["accuracy_normal_001"])
    assert abs(accuracy - 0.1) < 0.005
