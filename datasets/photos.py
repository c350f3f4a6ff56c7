"""Photos in a zip, for TensorFlow Datasets: cats and dogs, flowers, faces."""

import io
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import PIL.Image
import PIL.ImageOps
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import cats_vs_dogs


def shrink(content: bytes, shorter_side: int) -> bytes:
    """Return a photo, upright and in RGB, whose shorter side has at most so many pixels, as JPEG.

    The settings are those of the mirror's copies. Only the last bits of the result depend on the
    version of the library.
    """
    photo = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(content))).convert("RGB")
    scale = min(1.0, shorter_side / min(photo.size))
    size = [round(scale * side) for side in photo.size]
    output = io.BytesIO()
    small = photo.resize(size, PIL.Image.Resampling.LANCZOS)
    small.save(output, "jpeg", quality=84, optimize=True)
    return output.getvalue()


shrink_to_192 = partial(shrink, shorter_side=192)
shrink_to_176 = partial(shrink, shorter_side=176)


class Photos:
    """What makes a builder read a verified zip; one split, `train`.

    The photos are stored as they are, and ordered as TensorFlow Datasets does it: by the MD5 of
    `train` followed by the key. The key is the name in the zip, so neither the order in the zip
    nor the bytes of the photos matter, the classes are mixed, and a slice is always the same part.
    """

    FOLDERS: tuple[str, ...]  # in the order of the labels

    def __init__(self, *, files: dict[str, Path], **options):
        self.files = files
        super().__init__(**options)

    def _split_generators(self, dl_manager):
        """Return the only split; nothing is downloaded."""
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict]]:
        (file,) = self.files.values()
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                label = self.FOLDERS.index(member.split("/")[0])
                photo = {"image": archive.read(member), "image/filename": member, "label": label}
                yield member, photo


class CatsVsDogs(Photos, cats_vs_dogs.CatsVsDogs, skip_registration=True):
    """4,000 photos under the official data set's name and version, with its features."""

    FOLDERS = ("cats", "dogs")


class Flowers(Photos, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The 3,670 photos of `tf_flowers`; the labels are in the order of the alphabet."""

    VERSION = tfds.core.Version("1.0.0")
    FOLDERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")

    def _info(self):
        features = {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=self.FOLDERS),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )


class Celeba(Photos, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The first 10,000 aligned faces of CelebA at half their size, without attributes."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE = (109, 89, 3)  # pixels; the originals have 218 × 178

    def _generate_examples(self) -> Iterator[tuple[str, dict]]:
        (file,) = self.files.values()
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                yield member, {"image": archive.read(member), "image/filename": member}

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.SHAPE, encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=None
        )
