"""Pictures with annotated objects for TensorFlow Datasets: blood cells, a part of PASCAL VOC."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from preprocessing import read_voc

import numpy as np
import tensorflow_datasets as tfds


def keep(content: bytes) -> bytes:
    """Return an original as it is."""
    return content


class Annotated:
    """What makes a builder read a verified zip of pictures and their annotations in XML.

    The pictures are stored as they are, and ordered as TensorFlow Datasets does it. What has a
    fault is left out; `preprocessing.read_voc` tells what that is.
    """

    CLASSES: tuple[str, ...]  # in the order of the labels
    SHAPE: tuple[int | None, ...] = (None, None, 3)
    FLAGS: tuple[str, ...] = ("is_truncated", "is_difficult")
    ANNOTATIONS, IMAGES = "Annotations", "JPEGImages"
    LISTS: ClassVar[dict[str, str | None]]  # split -> list of its pictures; None for all

    def __init__(self, *, files: dict[str, Path], **options):
        self.files = files
        super().__init__(**options)

    def _info(self):
        each = {
            "label": tfds.features.ClassLabel(names=self.CLASSES),
            "bbox": tfds.features.BBoxFeature(),
            **dict.fromkeys(self.FLAGS, np.bool_),
        }
        features = {
            "image": tfds.features.Image(shape=self.SHAPE, encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(each),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        """Return the splits; nothing is downloaded."""
        return {split: self._generate_examples(listed) for split, listed in self.LISTS.items()}

    def _generate_examples(self, listed: str | None) -> Iterator[tuple[str, dict]]:
        (file,) = self.files.values()
        root = zipfile.Path(file)
        images, listing = root / self.IMAGES, root / listed if listed else None
        annotations, _ = read_voc(root / self.ANNOTATIONS, images, self.CLASSES, listing)
        for annotation in annotations:
            name = annotation["filename"]
            yield (
                name,
                {
                    "image": (images / name).read_bytes(),
                    "image/filename": name,
                    "objects": list(self._objects(annotation)),
                },
            )

    def _objects(self, annotation: dict) -> Iterator[dict]:
        """Yield the objects of a picture."""
        for place, box in enumerate(annotation["boxes"]):
            flags = {flag: annotation[flag.removeprefix("is_")][place] for flag in self.FLAGS}
            yield {"label": annotation["labels"][place], "bbox": box[[1, 0, 3, 2]], **flags}


class Bccd(Annotated, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Blood cells under the official data set's name and version, with its features."""

    VERSION = tfds.core.Version("1.0.0")
    CLASSES = ("RBC", "WBC", "Platelets")
    SHAPE = (480, 640, 3)
    FLAGS = ()
    LISTS: ClassVar = {
        "train": "ImageSets/Main/train.txt",
        "validation": "ImageSets/Main/val.txt",
        "test": "ImageSets/Main/test.txt",
    }


class VocSample(Annotated, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A hundred pictures of PASCAL VOC, with the features of TensorFlow Datasets' `voc`."""

    VERSION = tfds.core.Version("1.0.0")
    CLASSES = (
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
        *("train", "tvmonitor"),
    )
    ANNOTATIONS = "data/database/gts/pascalvoc_format"
    IMAGES = "data/database/images"
    LISTS: ClassVar = {"test": None}
