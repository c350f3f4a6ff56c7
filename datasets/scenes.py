"""Scenes of digits for TensorFlow Datasets: ink of MNIST on textures, with boxes that are known.

They are easy on purpose: a narrow network has to learn them in less than a minute. Light ink on a
dark ground, and three kinds of digit.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from labkit import sheets

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

SIDE = 96  # pixels of a scene
KINDS = 3  # the digits 0, 1 and 2
MOST = 3  # digits in a scene; at least one
HEIGHT = (28, 52)  # smallest and largest height of a digit's picture, in pixels
INK = 0.25  # paler pixels of a digit do not count as ink
TRIES = 20  # to find a place for a digit before it is left out


def digit_scene(
    digits: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scatter digits on a texture; no box touches another.

    Args:
        digits: pictures to choose from, uint8, shape (n, 28, 28), white ink on black.
        random: decides everything; the same state gives the same scene.

    Returns:
        scene: uint8, shape (SIDE, SIDE, 3).
        boxes: float32, shape (k, 4), corners relative to the scene, tight around the ink; k is
            from 1 to MOST.
        chosen: integers, shape (k,), the places of the digits in `digits`.
    """
    scene, boxes, chosen = texture(random), np.zeros((0, 4)), []
    for one in random.choice(len(digits), random.integers(1, MOST + 1), replace=False):
        ink = scaled_ink(digits[one], int(random.integers(HEIGHT[0], HEIGHT[1] + 1)))
        box = free_box(ink.shape, boxes, random)
        if box is not None:
            draw(scene, ink, box, random)
            boxes, chosen = np.append(boxes, [box], axis=0), [*chosen, one]
    pixels = np.round(255 * scene).astype(np.uint8)
    return pixels, (boxes / SIDE).astype("float32"), np.array(chosen)


def texture(random: np.random.Generator) -> np.ndarray:
    """Return a soft pattern in random dark colours, (SIDE, SIDE, 3)."""
    cells = random.integers(2, 9)
    coarse = random.integers(20, 110, (cells, cells, 3), np.uint8)
    soft = PIL.Image.fromarray(coarse).resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR)
    noise = random.uniform(-0.04, 0.04, (SIDE, SIDE, 1))
    return np.asarray(soft) / 255 + noise


def scaled_ink(digit: np.ndarray, height: int) -> np.ndarray:
    """Return a digit scaled to this height and cut to its ink, from 0 (paper) to 1 (full ink)."""
    picture = PIL.Image.fromarray(digit).resize((height, height), PIL.Image.Resampling.BILINEAR)
    ink = np.asarray(picture) / 255
    rows, columns = (np.flatnonzero((ink >= INK).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def free_box(
    shape: tuple[int, int], boxes: np.ndarray, random: np.random.Generator
) -> np.ndarray | None:
    """Return the box, in pixels, of a random place where nothing is yet, if one is found."""
    height, width = shape
    for _ in range(TRIES):
        x, y = random.integers(SIDE - width + 1), random.integers(SIDE - height + 1)
        box = np.array([x, y, x + width, y + height], float)
        apart = (boxes[:, :2] > box[2:]) | (boxes[:, 2:] < box[:2])
        if apart.any(axis=1).all():
            return box
    return None


def draw(scene: np.ndarray, ink: np.ndarray, box: np.ndarray, random: np.random.Generator) -> None:
    """Draw ink of a random light colour into its box."""
    x1, y1, x2, y2 = box.astype(int)
    ground, share = scene[y1:y2, x1:x2], ink[:, :, np.newaxis]
    ground[:] = (1 - share) * ground + share * random.uniform(0.8, 1.0, 3)


class DigitScenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Scenes made of the bundled sample of MNIST; no digit stands in scenes of two splits."""

    VERSION = tfds.core.Version("1.1.0")
    SIZES: ClassVar = {"train": 600, "validation": 50, "test": 100}

    def __init__(self, *, files: dict[str, Path], **options):
        self.files = files
        super().__init__(**options)

    def _info(self):
        each = {
            "label": tfds.features.ClassLabel(num_classes=KINDS),
            "bbox": tfds.features.BBoxFeature(),
        }
        features = {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="jpeg"),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(each),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        """Return the splits; nothing is downloaded."""
        return {split: self._generate_examples(split) for split in self.SIZES}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        random = np.random.default_rng(list(self.SIZES).index(split))
        digits, labels = self._digits(split)
        for number in range(self.SIZES[split]):
            scene, boxes, chosen = digit_scene(digits, random)
            stream = io.BytesIO()
            PIL.Image.fromarray(scene).save(stream, "jpeg", quality=95)
            name = f"{split}_{number:04d}.jpg"
            objects = [
                {"label": int(label), "bbox": box[[1, 0, 3, 2]]}
                for label, box in zip(labels[chosen], boxes, strict=True)
            ]
            example = {"image": stream.getvalue(), "image/filename": name, "objects": objects}
            yield name, example

    def _digits(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the digits of a split, (n, 28, 28), and their labels; every tenth validates."""
        part = "test" if split == "test" else "train"
        _, pictures, labels = zip(*sheets.read(self.files, part, 28, 28, channels=1), strict=True)
        pictures, labels = np.stack(pictures)[..., 0], np.array(labels)
        tenth = np.arange(len(labels)) % 10 == 0
        own = {"train": ~tenth, "validation": tenth, "test": True}[split] & (labels < KINDS)
        return pictures[own], labels[own]
