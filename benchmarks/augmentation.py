"""Batched against image-by-image augmentation: speed, and whether they do the same (measurement c).

Three kinds of pictures are sent through both. Photographs: mean and standard deviation of each
channel of each result. A grey card that gives away what was done to it: which of the eight ways it
was turned or mirrored, whether it was resized or recoloured, jointly; how far it was resized, how
its contrast and its light changed. A card of one colour: its hue and its saturation. Shares are
compared by a chi-squared test, numbers by that of Kolmogorov and Smirnov, all of two samples; the
threshold is divided by the number of tests.
"""

import functools
from collections.abc import Callable

from benchmarks import book, measure
from preprocessing import parse_aug_fn, with_seeds

import numpy as np
import tensorflow as tf
from scipy import stats

SIGNIFICANT = 1e-3  # how often all tests together may call equal distributions different
QUARTERS = np.array([0.2, 0.35, 0.5, 0.65])  # grey: changes of hue and saturation leave it alone
CENTRE, CENTRE_AREA = 0.8, 64.0  # grey of the square in the middle, and its pixels
COLOUR = (0.7, 0.4, 0.3)
KINDS = "turned, resized, recoloured"
Pipeline = Callable[[tf.data.Dataset], tf.data.Dataset]


def batched(examples, batch_size=64, seed=0, change=parse_aug_fn) -> tf.data.Dataset:
    """Return our pipeline: batch, then change whole batches."""
    batches = with_seeds(examples.batch(batch_size), seed)
    return batches.map(change, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def one_by_one(examples, batch_size=64) -> tf.data.Dataset:
    """Return the book's pipeline: change image by image, then batch."""
    changed = examples.map(book.parse_aug_fn, num_parallel_calls=tf.data.AUTOTUNE)
    return changed.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def as_examples(images: np.ndarray, labels: np.ndarray | None = None) -> tf.data.Dataset:
    """Return uint8 images, shape (n, 32, 32, 3), as TensorFlow Datasets would, from memory."""
    labels = np.zeros(len(images), "int64") if labels is None else labels
    return tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})


def speed(photos: np.ndarray, n_images: int, repeats: int) -> dict:
    """Return images per second of both pipelines, in turns, and their ratio."""
    examples = as_examples(np.resize(photos, (n_images, *photos.shape[1:])))
    passes = {name: make(examples) for name, make in (("ours", batched), ("book", one_by_one))}

    def once(batches):
        return measure.timed(lambda: [None for _ in batches])

    seconds = measure.take_turns(
        {name: functools.partial(once, batches) for name, batches in passes.items()}, repeats
    )
    return measure.ratio(seconds["book"], seconds["ours"]) | {
        f"{name}_images_per_second": n_images / measure.summary(times)["value"]
        for name, times in seconds.items()
    }


# ------------------------------------------------------------------------ the same distribution?


def p_values(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the p-value of each two-sample test between the `facts` of two pipelines."""
    found = {KINDS: _same_shares(one[KINDS], two[KINDS])}
    return found | {
        name: float(stats.ks_2samp(one[name], two[name], method="asymp").pvalue)
        for name in one
        if name != KINDS
    }


def grey_card() -> np.ndarray:
    """Return four grey quarters around a brighter square of 8 × 8, uint8, shape (32, 32, 3)."""
    card = np.kron(QUARTERS.reshape(2, 2), np.ones((16, 16)))
    card[12:20, 12:20] = CENTRE
    return np.round(np.repeat(card[:, :, None], 3, axis=2) * 255).astype("uint8")


def colour_card() -> np.ndarray:
    """Return a card of one colour, uint8, shape (32, 32, 3)."""
    return np.round(np.full((32, 32, 3), COLOUR) * 255).astype("uint8")


def read_grey(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what was done to grey cards, shape (n, 32, 32, 3): one entry an image.

    `turned`: number of the way of turning and mirroring, 0 to 7 (-1: none of them); `resized` and
    `recoloured`: 0 or 1; `area` of the square in pixels; `contrast`: brightest minus darkest
    quarter, `light`: their mean.
    """
    grey = images.mean(axis=3)
    # 7.5 pixels from the middle along both axes: outside the square when it is largest (5.6),
    # inside the card when it is smallest (9).
    quarters = grey[:, [8, 8, 23, 23], [8, 23, 8, 23]]
    ways = np.array([np.rot90(w, k).ravel() for w in _mirrored() for k in range(4)])
    order = np.argsort(np.argsort(quarters, axis=1), axis=1)
    match = (order[:, None, :] == ways[None]).all(axis=2)
    inside = grey > ((quarters.max(axis=1) + grey[:, 16, 16]) / 2)[:, None, None]
    area = inside.sum(axis=(1, 2)).astype("float64")
    before, after = np.round(np.sort(QUARTERS) * 255) / 255, np.sort(quarters, axis=1)
    return {
        "turned": np.where(match.any(axis=1), match.argmax(axis=1), -1),
        "resized": (area != CENTRE_AREA).astype(int),
        "recoloured": (np.abs(after - before).max(axis=1) > 1e-3).astype(int),
        "area": area,
        "contrast": after[:, -1] - after[:, 0],
        "light": after.mean(axis=1),
    }


def read_colour(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return hue and saturation (largest minus smallest channel) of cards of one colour."""
    middle = images[:, 16, 16]
    return {
        "hue": tf.image.rgb_to_hsv(middle).numpy()[:, 0],
        "saturation": middle.max(axis=1) - middle.min(axis=1),
    }


def _mirrored():
    way = np.arange(4).reshape(2, 2)
    return way, way[:, ::-1]


def facts(pipeline: Pipeline, photos: np.ndarray, n_images: int) -> dict[str, np.ndarray]:
    """Return every number that is compared, one array each, of `n_images` of each kind."""
    grey, colour, changed = (
        _results(pipeline, np.resize(picture, (n_images, 32, 32, 3)))
        for picture in (grey_card(), colour_card(), photos)
    )
    read = read_grey(grey)
    resized, recoloured = read["resized"] == 1, read["recoloured"] == 1
    found = {
        KINDS: (read["turned"] * 2 + read["resized"]) * 2 + read["recoloured"],
        "size where resized": read["area"][resized],
        "contrast where recoloured": read["contrast"][recoloured],
        "light where recoloured": read["light"][recoloured],
    }
    found |= {f"{name} of a colour": values for name, values in read_colour(colour).items()}
    for channel, name in enumerate(("red", "green", "blue")):
        found[f"mean of {name}"] = changed[..., channel].mean(axis=(1, 2))
        found[f"deviation of {name}"] = changed[..., channel].std(axis=(1, 2))
    return found


def _results(pipeline: Pipeline, images: np.ndarray) -> np.ndarray:
    return np.concatenate([batch.numpy() for batch, _ in pipeline(as_examples(images))])


def _same_shares(one: np.ndarray, two: np.ndarray) -> float:
    """Return the p-value of the chi-squared test that both hold the same shares of each kind."""
    kinds = np.unique(np.concatenate([one, two]))
    table = [[np.sum(sample == kind) for kind in kinds] for sample in (one, two)]
    return float(stats.chi2_contingency(table).pvalue)
