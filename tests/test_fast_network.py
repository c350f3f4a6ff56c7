"""Lab 5: the parts of its fast network, and what its studies found."""

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


@pytest.mark.parametrize("left_out", [{}, {"whiten": False}, {"identity": False}, {"fused": False}])
def test_each_network_of_the_study_learns_a_batch(lab, photos, left_out):
    keras.utils.set_random_seed(0)
    labels = tf.one_hot(np.arange(64) % 10, 10)
    batches = tf.data.Dataset.from_tensors((photos, labels)).repeat(15)
    assert int(batches.cardinality()) == 15
    model = lab["make_fast"](photos, share=0.125, name="toy", **left_out)
    history = lab["train_fast"](
        model, batches.apply(tf.data.experimental.assert_cardinality(15)), 2
    )
    lab["run"].forget("toy")
    assert history.history["loss"][1] < history.history["loss"][0]
    learned = {weight.path for weight in model.trainable_weights}
    assert any("stem" in path for path in learned) == ("whiten" in left_out)


def test_augmented_batches_keep_labels_and_range(lab, photos):
    examples = tf.data.Dataset.from_tensor_slices(
        {"image": (photos * 255).astype("uint8"), "label": np.arange(64) % 10}
    )
    images, labels = next(iter(lab["fast_batches"](examples, 64)))
    plain = sorted(np.argmax(y) for y in next(iter(image_batches(examples, 64)))[1])
    assert sorted(np.argmax(labels, axis=1)) == plain
    assert float(tf.reduce_min(images)) >= 0
    assert float(tf.reduce_max(images)) <= 1


# --- what the studies found -----------------------------------------------------------------------


def test_fast_network_is_as_good_and_as_fast_as_promised():
    rows = [row["metrics"] for row in results.study("05_fast")]
    assert len(rows) == 3
    assert np.median([row["accuracy"] for row in rows]) >= 0.940
    assert np.median([row["seconds"] for row in rows]) <= 1500


def test_race_with_the_book_was_won():
    metrics = committed(LAB, "standard")["metrics"]
    assert number(metrics["accuracy_short"]) >= book(LAB)["accuracy_batchnorm"]
