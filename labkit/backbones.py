"""Networks for images that were trained on ImageNet, each with the scaling of its own inputs.

All of them take photos as the course has them, values in [0, 1]; the first layer of each makes of
these what the network was trained with, and refuses anything else.
"""

import inspect
from unittest import mock

from labkit import data

import h5py
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers
from keras.src.utils import file_utils  # where Keras' networks look for their weights

LITE = "efficientnet_lite0"
# Kernel size, stride, expansion, output channels, and how often: Tan and Le, 2019 (B0), without
# squeeze-and-excitation and with ReLU6 in "Lite".
LITE_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def names() -> list[str]:
    """Return the names that `backbone` knows: the bundled network, then those of Keras."""
    return [LITE, *_applications()]


def backbone(
    name: str,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    top: bool = False,
    weights: str | None = "imagenet",
    **options,
) -> keras.Model:
    """Return a network by name; it takes photos with values in [0, 1].

    Arguments:
        name: `efficientnet_lite0`, whose weights come with the course, or any network of Keras
            Applications, as `inception_v3`, `resnet50`, `vgg16`, `mobilenet_v2`.
        input_shape: (height, width, 3) of the photos.
        top: with the classifier, whose output is the probabilities of the 1,000 ImageNet classes,
            shape (batch, 1000); else the last feature maps, (batch, rows, columns, channels), where
            rows and columns are about a thirty-second of height and width.
        weights: `imagenet`, or `None` for a network that starts untrained.
        options: of the function in Keras Applications, such as `alpha=0.25` for `mobilenet`; the
            bundled network has none.

    Photos outside [0, 1] raise `ValueError` when the network is called, and
    `tf.errors.InvalidArgumentError` in `fit` and `predict`. An unknown name raises `ValueError`, as
    do photos without three channels, and options that the network does not have or that are set
    here; weights that cannot be had, or not be read, raise `labkit.data.DataError`, which says what
    to do.
    """
    if tuple(input_shape)[-1:] != (3,):
        raise ValueError(f"photos have three channels: (height, width, 3), not {input_shape}")
    inputs = keras.Input(input_shape)
    if _plain(name) == _plain(LITE):
        return _lite(inputs, top, weights, options)
    if _plain(name) not in _applications():
        raise ValueError(f"no network {name!r}; known are {', '.join(names())}")
    build = _applications()[_plain(name)]
    scaled = InputScaling(build.__name__, name="scaling")(inputs)
    if taken := options.keys() & {"include_top", "include_preprocessing", "input_tensor"}:
        raise ValueError(f"{', '.join(sorted(taken))}: is set here; see `top` and `input_shape`")
    options |= {"include_top": top, "weights": weights, "input_shape": input_shape}
    with mock.patch.object(file_utils, "get_file", _keras_weights):
        network = build(input_tensor=scaled, **options)
    return keras.Model(inputs, network.output, name=network.name)


@keras.saving.register_keras_serializable("labs")
class InputScaling(layers.Layer):
    """Photos in [0, 1] -> the range that a network was trained with, same shape, float32.

    Keras compiles a model with this layer by XLA only when told to: XLA knows no assertions, and is
    slow with depthwise convolutions on a CPU.
    """

    def __init__(self, network: str, **options):
        super().__init__(**options | {"dtype": "float32"})
        self.network = network
        self.supports_jit = False

    def call(self, images):
        """Scale; raise for photos outside [0, 1]."""
        images = _checked(images)
        if self.network == LITE:
            return (255.0 * images - 127.0) / 128.0
        build = _applications()[_plain(self.network)]
        return inspect.getmodule(build).preprocess_input(255.0 * images)

    def compute_output_shape(self, input_shape):
        """Return the same shape."""
        return input_shape

    def get_config(self):
        """Return what makes the same layer again."""
        return super().get_config() | {"network": self.network}


def _checked(images):
    """Return the images; raise where values are not in [0, 1] (a hair more is forgiven)."""
    if keras.backend.is_keras_tensor(images):
        return images
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    said = "photos must have values in [0, 1]: divide 0 … 255 by 255, move [−1, 1] back"
    if tf.executing_eagerly() and not (float(low) > -0.01 and float(high) < 1.01):
        raise ValueError(f"{said}; these have {float(low):.3g} … {float(high):.3g}")
    checks = [
        tf.debugging.assert_greater(low, -0.01, said),
        tf.debugging.assert_less(high, 1.01, said),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(images)


def classes() -> list[str]:
    """Return the names of the 1,000 classes of ImageNet, in the order of a network's outputs."""
    return data.table("imagenet_classes")["name"].tolist()


def best_classes(probabilities: np.ndarray, n: int = 5) -> pd.DataFrame:
    """Return the `n` likeliest classes of one photo, (1000,), with their probabilities."""
    order = np.argsort(probabilities)[::-1][:n]
    known = data.table("imagenet_classes").iloc[order]
    return pd.DataFrame(
        {"class": known["name"].to_numpy(), "probability": np.asarray(probabilities)[order]}
    )


# --- the bundled network --------------------------------------------------------------------------


def _lite(inputs, top: bool, weights: str | None, options: dict) -> keras.Model:
    """Return EfficientNet-Lite0; source: Tan and Le, arXiv:1905.11946, and TensorFlow's "Lite"."""
    if options:
        raise ValueError(f"{LITE} has no options, so not {', '.join(options)}")
    if weights not in ("imagenet", None):
        raise ValueError(f"weights of {LITE} are 'imagenet' or None, not {weights!r}")
    model = lite(inputs)
    if weights is not None:
        model.load_weights(data.path(LITE, f"{LITE}.weights.h5"))
    return model if top else keras.Model(inputs, model.get_layer("features").output, name=LITE)


def lite(inputs) -> keras.Model:
    """Return the untrained EfficientNet-Lite0 with its classifier of 1,000 classes."""
    x = InputScaling(LITE, name="scaling")(inputs)
    x = _normalised(layers.Conv2D(32, 3, 2, "same", use_bias=False, name="stem"), x)
    for stage, (size, stride, expansion, channels, repeats) in enumerate(LITE_STAGES, start=1):
        for block in range(1, repeats + 1):
            first = stride if block == 1 else 1
            x = _inverted(x, size, first, expansion, channels, f"stage{stage}_block{block}")
    x = _normalised(layers.Conv2D(1280, 1, use_bias=False, name="head"), x, activation="features")
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    x = layers.Dropout(0.2)(x)
    x = layers.Dense(1000, name="logits")(x)
    return keras.Model(inputs, layers.Softmax(dtype="float32", name="classes")(x), name=LITE)


def _inverted(x, size: int, stride: int, expansion: int, channels: int, name: str):
    """Inverted residual: widen, convolve each channel alone, narrow; add where shapes agree."""
    before = x
    if expansion > 1:
        widen = layers.Conv2D(expansion * x.shape[-1], 1, use_bias=False, name=f"{name}_widen")
        x = _normalised(widen, x)
    depthwise = layers.DepthwiseConv2D(size, stride, "same", use_bias=False, name=f"{name}_depth")
    x = _normalised(depthwise, x)
    x = _normalised(layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_narrow"), x, None)
    return layers.Add(name=f"{name}_add")([x, before]) if before.shape == x.shape else x


def _normalised(convolution: layers.Layer, x, activation: str | None = ""):
    """Convolve, normalise, and cut to [0, 6]; `activation` names that last layer, None omits it."""
    x = convolution(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{convolution.name}_norm")(x)
    if activation is None:
        return x
    return layers.ReLU(6.0, name=activation or f"{convolution.name}_relu")(x)


# --- Keras' networks ------------------------------------------------------------------------------


def _applications() -> dict:
    """Return the functions of Keras Applications, by their names in small letters."""
    members = vars(keras.applications).items()
    return {_plain(name): value for name, value in members if inspect.isfunction(value)}


def _plain(name: str) -> str:
    """Return a name without case and underscores: `inception_v3` and `InceptionV3` are the same."""
    return name.replace("_", "").lower()


def _keras_weights(file: str, origin: str, file_hash: str | None = None, **_) -> str:
    """Return the path of a weight file: from here, the mirror, or the place where Keras has it."""
    if file in data.dataset("weights")["files"]:
        return str(data.path("weights", file))
    known_hash = file_hash and {32: "md5:", 64: "sha256:"}[len(file_hash)] + file_hash
    place = data.published("weights", file, origin, known_hash)
    try:
        h5py.File(place).close()
    except OSError as error:  # it came without a hash to check
        raise data.DataError(f"{place} is damaged ({error}): delete it and try again") from error
    return str(place)
