"""MNIST and Fashion-MNIST for TensorFlow Datasets: the official builders, from files at hand."""

from collections.abc import Iterator
from pathlib import Path

from labkit import sheets

from tensorflow_datasets import core
from tensorflow_datasets.image_classification import mnist

SIDE = 28  # pixels


class Verified:
    """What makes an official builder read verified `files` in place of downloading."""

    def __init__(self, *, files: dict[str, Path], **options):
        self.files = files
        super().__init__(**options)

    def _split_generators(self, dl_manager):
        """Return the two splits; nothing is downloaded."""
        return {"train": self._originals("train"), "test": self._originals("t10k")}

    def _originals(self, part: str) -> Iterator[tuple[int, dict]]:
        """Read the images and labels of the original files."""
        images = self.files[f"{part}-images-idx3-ubyte"]
        labels = self.files[f"{part}-labels-idx1-ubyte"]
        return self._generate_examples(labels.stat().st_size - 8, images, labels)


class Sample(Verified):
    """The same, from the contact sheets of a sample that ships with the course."""

    VERSION = core.Version("1.0.0")

    def _split_generators(self, dl_manager):
        return {split: self._sheet(split) for split in ("train", "test")}

    def _sheet(self, split: str) -> Iterator[tuple[int, dict]]:
        """Cut a contact sheet into its images; `index` is the place in the full data set."""
        for index, image, label in sheets.read(self.files, split, SIDE, SIDE, channels=1):
            yield index, {"image": image, "label": label}


class MNIST(Verified, mnist.MNIST, skip_registration=True):
    """The official data set: same name, version, keys and order."""


class FashionMNIST(Verified, mnist.FashionMNIST, skip_registration=True):
    """The official data set: same name, version, keys and order."""


class MNISTSample(Sample, mnist.MNIST, skip_registration=True):
    """A class-balanced part of MNIST."""


class FashionMNISTSample(Sample, mnist.FashionMNIST, skip_registration=True):
    """A class-balanced part of Fashion-MNIST."""
