"""Networks trained on ImageNet: the bundled weights are the original's, and no range goes wrong."""

import importlib.util
import os
import sys

from labkit import backbones, data, fetch
from labkit.paths import ROOT

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

spec = importlib.util.spec_from_file_location("convert", ROOT / "datasets/convert_efficientnet.py")
convert = importlib.util.module_from_spec(spec)
spec.loader.exec_module(convert)

TABLE = [
    "Xception",
    "VGG16",
    "VGG19",
    "ResNet50",
    "InceptionV3",
    "InceptionResNetV2",
    "MobileNet",
    "MobileNetV2",
]
TABLE += ["DenseNet121", "DenseNet169", "DenseNet201", "NASNetMobile", "NASNetLarge"]


@pytest.fixture(scope="module")
def lite():
    return backbones.backbone("efficientnet_lite0", top=True)


@pytest.fixture(scope="module")
def recorded():
    return np.load(convert.VECTORS)


def top_5(logits):
    return np.argsort(-logits)[:, :5].tolist()


def test_bundled_weights_say_what_the_original_says(lite, recorded):
    ours = convert.logits(lite)
    np.testing.assert_allclose(ours, recorded["logits"], rtol=0, atol=0.05)
    assert top_5(ours) == top_5(recorded["logits"])


def test_conversion_was_exact_before_the_rounding(recorded):
    np.testing.assert_allclose(recorded["float32"], recorded["logits"], rtol=0, atol=1e-3)
    assert top_5(recorded["float32"]) == top_5(recorded["logits"])


def test_conversion_of_the_original_today(tmp_path):
    pytest.importorskip("torch", reason="to convert again: pip install torch==2.13.0")
    try:
        state, logits, _ = convert.original(tmp_path)
    except fetch.SourceError as error:
        pytest.skip(f"the original cannot be had: {error}")
    model = backbones.lite(keras.Input((224, 224, 3)))
    convert.fill(model, state)
    np.testing.assert_allclose(convert.logits(model), logits, rtol=0, atol=1e-3)


def test_photos_are_recognised(lite, recorded):
    probabilities = np.asarray(lite(convert.photos()))
    assert probabilities.shape == (2, 1000)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    best = backbones.best_classes(probabilities[1])
    assert best["probability"].is_monotonic_decreasing
    assert len(best) == 5
    assert best["class"][0] == backbones.classes()[int(recorded["logits"][1].argmax())]


@pytest.mark.parametrize(("size", "cells"), [(224, 7), (96, 3), (160, 5)])
def test_features_of_any_size(size, cells):
    model = backbones.backbone("efficientnet_lite0", (size, size, 3), weights=None)
    assert model.output_shape == (None, cells, cells, 1280)
    assert model.count_params() == 3_413_024


def test_wrong_range_is_refused():
    photos = np.full((1, 4, 4, 3), 0.5, "float32")
    layer = backbones.InputScaling("MobileNetV2")
    np.testing.assert_allclose(layer(photos), 0.0, atol=1e-6)
    for wrong in (255 * photos, photos - 1, photos * np.nan):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            layer(wrong)
    model = keras.Sequential([keras.Input((4, 4, 3)), layer])
    model.predict(photos, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[0, 1\]"):
        model.predict(255 * photos, verbose=0)


@pytest.mark.parametrize("name", TABLE)
def test_scaling_is_that_of_each_network(name):
    photos = np.random.default_rng(0).random((2, 5, 5, 3)).astype("float32")
    build = getattr(keras.applications, name)
    expected = sys.modules[build.__module__].preprocess_input(255.0 * photos)
    np.testing.assert_allclose(backbones.InputScaling(name)(photos), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pooling": "avg"}, "not pooling"),
        ({"weights": "mine.weights.h5"}, "not 'mine.weights.h5'"),
    ],
)
def test_what_the_bundled_network_does_not_have_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        backbones.backbone(backbones.LITE, (64, 64, 3), **wrong)


@pytest.mark.parametrize("name", [backbones.LITE, "vgg16"])
def test_photos_have_three_channels(name):
    with pytest.raises(ValueError, match=r"three channels.*\(64, 64, 1\)"):
        backbones.backbone(name, (64, 64, 1), weights=None)


def test_scaling_is_not_left_out():
    with pytest.raises(ValueError, match="include_preprocessing"):
        backbones.backbone("efficientnetv2b0", weights=None, include_preprocessing=False)


def test_names():
    assert backbones.names()[0] == "efficientnet_lite0"
    assert {backbones._plain(name) for name in TABLE} <= set(backbones.names())
    with pytest.raises(ValueError, match="inceptionv3"):
        backbones.backbone("inception_v33")


def test_network_of_keras_takes_photos_as_they_are():
    model = backbones.backbone("mobilenet_v2", (96, 96, 3), weights=None)
    original = keras.applications.MobileNetV2((96, 96, 3), include_top=False, weights=None)
    original.set_weights(model.get_weights())
    photos = np.random.default_rng(0).random((2, 96, 96, 3)).astype("float32")
    np.testing.assert_allclose(model(photos), original(2 * photos - 1), atol=1e-4)


def test_file_of_keras_from_the_mirror(monkeypatch):
    monkeypatch.setenv("LABS_HOME", os.environ["LABS_USER_HOME"])
    place = data._local("weights", "mobilenet_2_5_224_tf_no_top.h5")[1]
    if not (place.exists() or os.environ.get("LABS_MIRROR")):
        pytest.skip("Keras' MobileNet file is not here: set LABS_MIRROR")
    model = backbones.backbone("mobilenet", alpha=0.25)
    original = keras.applications.MobileNet(include_top=False, weights=place, alpha=0.25)
    photos = convert.photos()
    # The scaled photos differ in their last bit, features of up to 6 in the fourth digit
    np.testing.assert_allclose(model(photos), original(2 * photos - 1), atol=5e-3)


def test_file_that_cannot_be_had(monkeypatch, tmp_path):
    def silent(*_):
        raise fetch.SourceError("no answer")

    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "single", silent)
    with pytest.raises(data.DataError) as caught:
        backbones.backbone("mobilenet_v2", (96, 96, 3))
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
    for words in (name, "no answer", str(tmp_path), "LABS_MIRROR"):
        assert words in str(caught.value)


def test_damaged_file_without_a_hash_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
    place = tmp_path / "cache" / "weights" / name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"\x89HDF\r\n\x1a\n truncated")
    with pytest.raises(data.DataError, match=rf"{name} is damaged .*delete it"):
        backbones.backbone("mobilenet_v2", (96, 96, 3))


def test_features_can_be_saved_and_loaded(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = backbones.InputScaling("efficientnet_lite0")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.save(tmp_path / "model.keras")
    photos = np.random.default_rng(0).random((2, 32, 32, 3)).astype("float32")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(photos), model(photos), atol=1e-6)


def test_classes_are_those_of_imagenet():
    table = data.table("imagenet_classes")
    assert len(table) == 1000
    assert table["wordnet"].is_unique
    named = dict(zip(table["wordnet"], table["name"], strict=True))
    assert named["n02504458"] == "African elephant"
    assert named["n01871265"] == "tusker"
    pd.testing.assert_index_equal(table.index, pd.RangeIndex(1000))
