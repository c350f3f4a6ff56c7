"""Contact sheets: many small pictures of one size in one lossless file, and a list beside it."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import PIL.Image

COLUMNS = 50  # pictures side by side


def save(
    folder: Path, split: str, pictures: np.ndarray, indices: np.ndarray, labels: np.ndarray
) -> None:
    """Write `<split>.webp`, the pictures row by row, and `<split>.csv`, their index and label.

    `pictures` is uint8, `(n, height, width, channels)` with one or three channels, and n a multiple
    of `COLUMNS`; `indices` and `labels` are integers, `(n,)`. Raises `ValueError` for another n.
    """
    n, height, width, channels = pictures.shape
    if n % COLUMNS:
        raise ValueError(f"a contact sheet holds a multiple of {COLUMNS} pictures, not {n}")
    rows = pictures.reshape(-1, COLUMNS, height, width, channels).swapaxes(1, 2)
    sheet = rows.reshape(-1, COLUMNS * width, channels)
    picture = PIL.Image.fromarray(sheet if channels == 3 else sheet[:, :, 0])
    picture.save(folder / f"{split}.webp", lossless=True, quality=100, method=6)
    with (folder / f"{split}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label"])
        writer.writerows(zip(indices, labels, strict=True))


def read(
    files: Mapping[str, Path], split: str, height: int, width: int, channels: int
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield index, picture and label of every picture that `save` wrote, in its order.

    `files` leads from the names `<split>.webp` and `<split>.csv` to the files. Raises `ValueError`
    when the list is longer or shorter than the sheet.
    """
    mode = "RGB" if channels == 3 else "L"
    sheet = np.asarray(PIL.Image.open(files[f"{split}.webp"]).convert(mode))
    rows = sheet.reshape(-1, height, COLUMNS, width, channels).swapaxes(1, 2)
    pictures = rows.reshape(-1, height, width, channels)
    with files[f"{split}.csv"].open(newline="") as file:
        for picture, row in zip(pictures, csv.DictReader(file), strict=True):
            yield int(row["index"]), picture, int(row["label"])
