"""Lab 8: the calculator, the networks against their papers, the residual block, Grad-CAM."""

import math
import runpy
import types

from labkit.paths import ROOT
from labkit.results import committed, number
from tools import cells

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.testing import assert_allclose

LAB = "08_cnn_architectures"
RNG = np.random.default_rng(8)


@pytest.fixture(scope="module")
def lab():
    return types.SimpleNamespace(**cells.load(LAB))


def total(lab, model):
    """Return parameters and multiply-adds of a model."""
    table = lab.cost(model)
    return int(table["parameters"].sum()), int(table["multiply-adds"].sum())


# --- the calculator -------------------------------------------------------------------------------

LAYERS = {  # layer on maps of 9 × 9 × 6 -> multiply-adds by hand
    "valid": (layers.Conv2D(4, 3), 3 * 3 * 6 * 4 * 7 * 7),
    "strided": (layers.Conv2D(4, (5, 2), 2, padding="same"), 5 * 2 * 6 * 4 * 5 * 5),
    "groups": (layers.Conv2D(4, 3, groups=2), 3 * 3 * 3 * 4 * 7 * 7),
    "depthwise": (layers.DepthwiseConv2D(3, padding="same"), 3 * 3 * 6 * 9 * 9),
    "separable": (layers.SeparableConv2D(4, 3, 2), (3 * 3 * 6 + 6 * 4) * 4 * 4),
    "transposed": (layers.Conv2DTranspose(4, 3, 2), 3 * 3 * 6 * 4 * 9 * 9),
    "dense": (layers.Dense(4), 6 * 4 * 9 * 9),
    "pooling": (layers.MaxPooling2D(2), 0),
    "normalisation": (layers.BatchNormalization(), 0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_multiply_adds_are_those_by_hand(lab, name):
    layer, by_hand = LAYERS[name]
    model = keras.Sequential([keras.Input((9, 9, 6)), layer])
    assert total(lab, model) == (layer.count_params(), by_hand)


def test_bytes_are_those_of_the_outputs(lab):
    images = keras.Input((8, 8, 3))
    half = layers.Conv2D(5, 3, dtype="float16")(images)
    model = keras.Model(images, layers.Dense(7, dtype="float32")(layers.Flatten()(half)))
    table = lab.cost(model)
    computed = keras.Model(images, [layer.output for layer in model.layers])(
        RNG.random((1, 8, 8, 3), "float32")
    )
    assert table["bytes"].tolist() == [output.numpy().nbytes for output in computed]
    assert table["output"].tolist() == ["8 × 8 × 3", "6 × 6 × 5", "180", "7"]


def test_models_inside_models_count(lab):
    inside = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3)])
    model = keras.Sequential([keras.Input((6, 6, 3)), inside, layers.Flatten(), layers.Dense(2)])
    assert total(lab, model) == (model.count_params(), 3 * 3 * 3 * 4 * 4 * 4 + 64 * 2)


def test_unknown_kernels_are_refused(lab):
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4)])
    with pytest.raises(ValueError, match="how often LSTM uses its weights"):
        lab.cost(model)


# --- networks against what their authors printed --------------------------------------------------


def test_table_of_lenet(lab):
    pairs = [(source, target) for target, row in enumerate(lab.C3_TABLE) for source in row]
    assert len(pairs) == len(set(pairs)) == 60
    assert np.bincount([source for source, _ in pairs]).tolist() == [10] * 6
    assert sum(25 * len(row) + 1 for row in lab.C3_TABLE) == 1516


def test_map_of_c3_sees_only_its_row(lab):
    model = lab.lenet5()
    maps = keras.Model(model.get_layer("S2").output, model.get_layer("C3").output)
    inputs = RNG.normal(size=(1, 14, 14, 6)).astype("float32")
    before = maps(inputs).numpy()
    assert before.shape == (1, 10, 10, 16)
    inputs[..., 3] += 1
    changed = np.abs(maps(inputs).numpy() - before).max(axis=(0, 1, 2)) > 1e-6
    assert changed.tolist() == [3 in row for row in lab.C3_TABLE]


@pytest.mark.parametrize(
    ("make", "options", "parameters"),
    [
        ("lenet5", {}, 60_000 + 850),
        ("alexnet", {"top": False}, 62_378_344 - 58_631_144),
        ("alexnet", {"top": False, "groups": 2}, 60_965_224 - 58_631_144),
        ("googlenet", {}, 6_998_552),
        ("resnet34", {"classes": 10}, 21_306_826),
        ("mobilenet", {}, 4_253_864),
    ],
)
def test_parameters_are_those_printed(lab, make, options, parameters):
    assert getattr(lab, make)(**options).count_params() == parameters


@pytest.mark.parametrize(
    ("name", "parameters"), [("D, VGG-16", 14_714_688), ("E, VGG-19", 20_024_384)]
)
def test_vgg_is_that_of_keras(lab, name, parameters):
    ours = lab.vgg(lab.VGG[name], top=False)
    assert ours.count_params() == parameters
    theirs = getattr(keras.applications, name[3:].replace("-", ""))(
        include_top=False, weights=None, input_shape=(224, 224, 3)
    )
    shapes = [[weight.shape for weight in model.weights] for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.output.shape == theirs.output.shape


def test_multiply_adds_are_those_published(lab):
    assert round(total(lab, lab.mobilenet())[1] / 1e6) == 569
    plain = lab.cost(lab.resnet34())
    shortcuts = 3 * 28 * 28 * 64 * 128
    assert round((plain["multiply-adds"].sum() - shortcuts) / 1e9, 1) == 3.6
    assert [lab.cost(lab.googlenet())["output"].iloc[-2], len(lab.INCEPTIONS)] == ["1024", 9]


# --- blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_fused_normalisation_is_that_of_keras(lab, policy):
    if policy not in lab.run.speed:
        pytest.skip("this processor does not compute in bfloat16")
    ours = lab.FusedBatchNormalization(dtype=policy)
    theirs = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    inputs = tf.constant(3 * RNG.normal(size=(32, 6, 6, 4)) + 1, ours.compute_dtype)
    for layer in (ours, theirs):
        layer.build(inputs.shape)
        layer.gamma.assign([0.5, 1.0, 2.0, -1.0])
        layer.beta.assign([0.0, 1.0, -1.0, 0.5])
    tolerance = 2e-3 if policy == "float32" else 0.05
    for training in (True, False, True):
        results = []
        for layer in (ours, theirs):
            x = tf.cast(inputs, layer.compute_dtype)
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x, training=training)
                loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 3) / 1000
            results.append(
                [outputs, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])]
            )
        assert results[0][0].dtype == ours.compute_dtype
        for a, b in zip(*results, strict=True):
            scale = float(tf.reduce_max(tf.abs(tf.cast(b, "float32"))))
            assert_allclose(np.float32(a), np.float32(b), atol=tolerance * scale)
    assert_allclose(ours.moving_mean, theirs.moving_mean, atol=tolerance)
    assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=max(tolerance, 1e-2))


def test_fused_normalisation_is_saved_and_frozen(lab, tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 3)), lab.FusedBatchNormalization(momentum=0.5)])
    inputs = RNG.random((5, 4, 4, 3), "float32")
    model(inputs, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[-1].momentum == 0.5
    assert_allclose(again(inputs), model(inputs))
    model.trainable = False
    assert_allclose(model(inputs, training=True), model(inputs))


def residual(lab, filters, stride, shortcut):
    maps = keras.Input((8, 8, 16))
    return keras.Model(maps, lab.residual_block(maps, filters, stride, shortcut))


def test_block_whose_change_is_zero_passes_its_input_on(lab):
    inputs = RNG.normal(size=(2, 8, 8, 16)).astype("float32")
    for shortcut, expected in ((lab.projected, np.maximum(inputs, 0)), (None, 0 * inputs)):
        model = residual(lab, 16, 1, shortcut)
        model.set_weights([weight * (weight.ndim < 2) for weight in model.get_weights()])
        assert_allclose(model(inputs), expected)


def test_shortcut_without_parameters_takes_every_second_pixel(lab):
    inputs = RNG.random((2, 8, 8, 16), "float32")
    model = residual(lab, 32, 2, lab.zero_padded)
    assert model.count_params() == residual(lab, 32, 2, None).count_params()
    model.set_weights([weight * (weight.ndim < 2) for weight in model.get_weights()])
    outputs = model(inputs).numpy()
    assert_allclose(outputs[..., 8:24], inputs[:, ::2, ::2])
    assert not outputs[..., :8].any()
    assert not outputs[..., 24:].any()


def test_projection_only_where_the_shape_changes(lab):
    count = [residual(lab, filters, stride, lab.projected).count_params() for filters, stride in
             ((16, 1), (16, 2), (32, 1))]  # fmt: skip
    without = [residual(lab, filters, 1, None).count_params() for filters in (16, 16, 32)]
    assert np.subtract(count, without).tolist() == [0, 16 * 16 + 64, 16 * 32 + 128]


def test_squeeze_and_excitation_weighs_channels(lab):
    maps = keras.Input((5, 5, 32))
    model = keras.Model(maps, lab.squeeze_excite(maps, ratio=4))
    assert model.count_params() == 32 * 8 + 8 + 8 * 32 + 32
    inputs = RNG.random((2, 5, 5, 32), "float32") + 0.1
    weights = model(inputs).numpy() / inputs
    assert_allclose(weights, weights[:, :1, :1] * np.ones((1, 5, 5, 1)), rtol=1e-5)
    assert ((weights > 0) & (weights < 1)).all()


# --- the experiment -------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [8, 20, 56])
def test_depth_is_the_number_of_layers_with_kernels(lab, depth):
    models = [lab.cifar_network(kind, depth, share=0.25) for kind in lab.SHORTCUTS]
    for model in models:
        assert (lab.cost(model)["multiply-adds"] > 0).sum() == depth
        assert model.output.shape == (None, 10)
    assert len({model.count_params() for model in models}) == 1
    assert [sum(isinstance(layer, layers.Add) for layer in model.layers) for model in models] == [
        0,
        (depth - 2) // 2,
    ]


@pytest.mark.parametrize("depth", [2, 18, 55])
def test_other_depths_are_refused(lab, depth):
    with pytest.raises(ValueError, match="6 n"):
        lab.cifar_network("plain", depth)


def test_gradient_of_the_first_layer_grows_without_shortcuts(lab):
    images, targets = RNG.random((16, 32, 32, 3), "float32"), np.eye(10, dtype="float32")[[1] * 16]
    growth = {}
    for kind in lab.SHORTCUTS:
        keras.utils.set_random_seed(0)
        ratios = lab.relative_gradients(lab.cifar_network(kind, 56, 0.5), images, targets)
        assert len(ratios) == 55
        growth[kind] = ratios[0] / ratios[-1]
    assert growth["plain"] > 10 * growth["resnet"]


def test_study_has_twelve_rows_of_the_four_networks(lab):
    script = runpy.run_path(str(ROOT / "labs" / "studies" / "08_degradation.py"))
    assert len(script["CASES"]) == 12
    assert {case["kind"] for case in script["CASES"]} == set(lab.SHORTCUTS)
    assert lab.RECIPE["epochs"] <= 8


def test_shortcuts_help_the_deep_network():
    metrics = committed(LAB, "standard").get("metrics")
    if not metrics:
        pytest.skip("not measured yet in standard")
    assert number(metrics["accuracy_resnet_56"]) > number(metrics["accuracy_plain_56"])
    assert number(metrics["training_error_resnet_56"]) < number(metrics["training_error_plain_56"])


# --- Grad-CAM -------------------------------------------------------------------------------------


@pytest.fixture
def spotter():
    """Return a network that knows class 0 by red and class 1 by green, on maps of 4 × 4."""
    photo = keras.Input((16, 16, 3))
    x = layers.AveragePooling2D(4)(layers.Conv2D(3, 1, use_bias=False)(photo))
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(photo, layers.Softmax()(x))
    model.set_weights([np.eye(3)[None, None], np.array([[9.0, -9], [-9, 9], [0, 0]]), np.zeros(2)])
    return model


def test_grad_cam_finds_the_place(lab, spotter):
    photo = np.zeros((16, 16, 3), "float32")
    photo[:4, :4, 0], photo[12:, 12:, 1] = 1.0, 0.5
    red, green = (lab.grad_cam(spotter, photo, index) for index in (0, 1))
    for found in (red, green):
        assert found.shape == (16, 16)
        assert 0 <= found.min() <= found.max() <= 1
    assert np.unravel_index(red.argmax(), red.shape) < (4, 4)
    assert red[8:, 8:].max() == 0  # green speaks against red, and is left out
    assert green[12:, 12:].mean() > 0.5
    assert green[:8, :8].max() == 0


def test_grad_cam_of_pooling_and_a_dense_layer_is_its_column(lab, spotter):
    photo = RNG.random((16, 16, 3), "float32")
    logits = keras.Model(spotter.inputs, spotter.layers[-1].input)
    found = lab.grad_cam(logits, photo, 0)
    assert_allclose(found, lab.grad_cam(spotter, photo, 0), atol=1e-6)
    maps = photo.reshape(4, 4, 4, 4, 3).mean(axis=(1, 3))
    expected = np.maximum(maps @ np.array([9.0, -9, 0]), 0)
    resized = tf.image.resize((expected / expected.max())[..., None], (16, 16))[..., 0]
    assert_allclose(found, resized, atol=1e-5)


def test_grad_cam_refuses_probabilities(lab):
    photo = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(photo))
    network = keras.Model(photo, layers.Dense(2, activation="softmax")(x))
    with pytest.raises(ValueError, match="classifier_activation=None"):
        lab.grad_cam(network, np.zeros((8, 8, 3), "float32"), 0)


def test_probabilities_add_up(lab):
    photo = RNG.integers(0, 256, (40, 60, 3)).astype("uint8")
    network, batch, probabilities = lab.answers("efficientnet_lite0", 224, [photo, photo])
    assert batch.shape == (2, 224, 224, 3)
    assert_allclose(probabilities.sum(axis=1), [1, 1], atol=1e-4)
    assert math.prod(network.output.shape[1:]) == 1000
