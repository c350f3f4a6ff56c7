"""Turn raw examples into tensors that a model can learn from, in the order of the course.

Tables (chapters 2 and 3) come in as pandas frames. Images (from chapter 4 on) are floating-point
tensors with values in [0, 1]: one image, shape (height, width, channels), or a batch of them,
shape (batch, height, width, channels). Nothing here keeps state: the same arguments and the same
seed give the same result, called directly, inside a `tf.function` and in a `tf.data` pipeline.

Objects in images (chapter 12) are a dict that goes with one image, or with a batch of them:
`boxes`, float32, shape ([batch,] n, 4), corners (x1, y1, x2, y2) in [0, 1] as in `labkit.boxes`,
`labels`, int64, shape ([batch,] n), and `difficult`, bool, likewise. All images of a batch have the
same n: where there is no object, the label is -1 and the box four zeros.

Every function that changes images at random works in the same way:

- `seed` is a pair of integers, shape (2,), as in `tf.random.stateless_uniform`;
- each image of a batch draws its own random numbers, so one batch shows many variations;
- each image is changed with `probability`, independently of the others, or else left as it was;
- the result has the shape and the type of the input, and its values lie in [0, 1];
- one image is treated exactly as a batch that holds nothing else.

They all raise `ValueError` for images that are not floating point, are empty or have the wrong
rank, for a seed of another shape, and for a probability or a range that makes no sense. Values
outside [0, 1] (or NaN) are noticed when the function is called directly; inside a graph such a
check would cost more than the change itself. What only a running graph can know, such as a label
out of range, stops the graph with `tf.errors.InvalidArgumentError`.
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from labkit.boxes import box_area, clip_boxes, flip_boxes, move_boxes, swap_xy

import numpy as np
import pandas as pd
import PIL.Image
import PIL.ImageOps
import tensorflow as tf
from sklearn.preprocessing import StandardScaler

# --------------------------------------------------------------------------------------- tables

HOUSE_COLUMNS = (
    "id",  # of the house: some were sold more than once
    "date",  # of the sale, May 2014 to May 2015
    "price",  # in dollars: what the network predicts
    "bedrooms",
    "bathrooms",
    "sqft_living",  # living area, in square feet like all areas
    "sqft_lot",  # area of the ground
    "floors",
    "waterfront",  # 1 with a view of the water, else 0
    "view",  # rating, 0 to 4
    "condition",  # rating, 1 to 5
    "grade",  # rating of construction and design, 1 to 13
    "sqft_above",  # living area above the ground …
    "sqft_basement",  # … and below
    "yr_built",
    "yr_renovated",  # 0 for never
    "zipcode",
    "lat",  # latitude and longitude, in degrees
    "long",
    "sqft_living15",  # living area and ground as measured in 2015
    "sqft_lot15",
)


def parse_houses(frame):
    """Make every column of the King County house sales a number (chapter 2).

    The date of the sale, a date or text that begins with YYYYMMDD, becomes the columns `year`,
    `month` and `day`; `id` and `date` are dropped; true and false become 1 and 0.

    Args:
        frame: DataFrame with at least the 21 columns `HOUSE_COLUMNS`; it is not changed.

    Returns:
        DataFrame of float64 with the same rows: `price` in dollars and 21 features.

    Raises:
        ValueError: a column is missing, has missing values or is not numeric, a date cannot be
            read, or there are no rows.
    """
    missing = [name for name in HOUSE_COLUMNS if name not in frame]
    _require(not missing, f"the table lacks the columns {missing}")
    digits = frame["date"].astype(str).str.replace("-", "").str[:8]
    date = pd.to_datetime(digits, format="%Y%m%d", errors="coerce")
    unreadable = frame["date"][date.isna()].tolist()
    _require(not unreadable, f"column 'date' holds {unreadable[:3]}, which are no dates")
    houses = frame.drop(columns=["id", "date"]).assign(
        year=date.dt.year, month=date.dt.month, day=date.dt.day
    )
    _require_numbers(houses)
    return houses.astype("float64")


def split_rows(n_rows, fractions=(0.6, 0.2, 0.2), seed=0):
    """Deal the rows of a table at random into parts that share no row and together hold all.

    The default shares, for training, validation and test, are those of chapter 2. The limits
    between the parts are rounded down to whole rows.

    Args:
        n_rows: number of rows.
        fractions: size of each part as a share of the whole; positive, with the sum 1.
        seed: non-negative integer; the same seed deals the same rows.

    Returns:
        Tuple with one array of row numbers (0 … n_rows - 1, in random order) per part:

        >>> [len(part) for part in split_rows(21613)]
        [12967, 4323, 4323]

    Raises:
        ValueError: the fractions are not positive or do not add up to 1, or a part is empty.
    """
    _require(min(fractions) > 0, f"fractions must be positive, not {fractions}")
    _require(np.isclose(sum(fractions), 1), f"fractions must add up to 1, not {sum(fractions)}")
    # Rounding first: 0.7 + 0.2 of 10 rows is 8.999… in floating point, and means 9.
    limits = np.floor(np.round(np.cumsum(fractions) * n_rows, 6)).astype(int)
    parts = np.split(np.random.default_rng(seed).permutation(n_rows), limits[:-1])
    sizes = [len(part) for part in parts]
    _require(min(sizes) > 0, f"{n_rows} rows in fractions {fractions} leave a part empty: {sizes}")
    return tuple(parts)


def standardize(train, *others):
    """Give every column of the training rows mean 0 and standard deviation 1.

    The other tables (validation, test) are shifted and scaled by the mean and the deviation *of
    the training rows*: what is measured on them must not have helped to prepare the data.
    The values are not confined to [0, 1] or [-1, 1]. A column that is constant in `train` is only
    shifted, so it becomes 0 there. The deviation divides by n, not by n - 1.

    Args:
        train: table of numbers, shape (rows, columns): DataFrame or array; it is not changed.
        *others: tables with the same columns.

    Returns:
        The standardised tables (DataFrames stay DataFrames), then the fitted scikit-learn
        `StandardScaler`, whose `inverse_transform` leads back to the original units.

    Raises:
        ValueError: a table is not two-dimensional, has no rows, other columns than `train`, or a
            column with missing values or without numbers.
    """
    tables = (train, *others)
    for table in tables:
        _require_numbers(pd.DataFrame(table))
    scaler = StandardScaler().fit(train)
    scaler.set_output(transform="pandas" if isinstance(train, pd.DataFrame) else "default")
    return (*(scaler.transform(table) for table in tables), scaler)


POKEMON_TYPES = (
    *("Bug", "Dark", "Dragon", "Electric", "Fairy", "Fighting", "Fire", "Flying", "Ghost"),
    *("Grass", "Ground", "Ice", "Normal", "Poison", "Psychic", "Rock", "Steel", "Water"),
)
PAIR = ("First_pokemon", "Second_pokemon")


def encode_integers(table, categories, missing="empty"):
    """Replace words by the place of each in a list of categories (chapter 3).

    The codes are 0, 1, …, in the order of `categories`; a missing value is a category of its own,
    the last. Such codes have an order and distances that the words need not have.

    Args:
        table: DataFrame whose columns hold words or missing values; it is not changed.
        categories: every word that may occur, each once.
        missing: name of the category of missing values, which may also stand in the table.

    Returns:
        DataFrame of int64 with the same rows and columns, values 0 … len(categories):

        >>> types = pd.DataFrame({"Type 1": ["Grass", "Fire"], "Type 2": ["Poison", None]})
        >>> encode_integers(types, ("Fire", "Grass", "Poison")).to_numpy().tolist()
        [[1, 2], [0, 3]]

    Raises:
        ValueError: a word is none of the categories (the message names column and row), a
            category stands twice, or the table has no rows.
    """
    words = [*categories, missing]
    _require(len(set(words)) == len(words), f"the categories {words} are not all different")
    _require(len(table) > 0, "the table has no rows")
    codes = {}
    for name, column in table.items():
        codes[name] = pd.Index(words).get_indexer(column.astype("object").fillna(missing))
        _require_each(codes[name] >= 0, column, f"is none of {', '.join(words)}")
    return pd.DataFrame(codes, index=table.index, dtype="int64")


def encode_multi_hot(table, categories, missing="empty"):
    """Count for each row how often each category stands in it (chapter 3).

    From a table with one column this is the one-hot code: a single 1, at the place of the
    category. From several columns it is the sum of their one-hot codes, the *multi-hot* code, in
    which the order of the columns is lost: Grass and Poison is the same as Poison and Grass.

    Args:
        table: DataFrame whose columns hold words or missing values; it is not changed.
        categories: every word that may occur, each once.
        missing: name of the category of missing values, the last column of the result.

    Returns:
        DataFrame of float64 with the same rows and a column for each of `categories` and
        `missing`; every row adds up to the number of columns of `table`:

        >>> types = pd.DataFrame({"Type 1": ["Grass", "Fire"], "Type 2": ["Poison", None]})
        >>> encode_multi_hot(types, ("Fire", "Grass", "Poison")).to_numpy().tolist()
        [[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]]

    Raises:
        ValueError: as for `encode_integers`.
    """
    codes = encode_integers(table, categories, missing).to_numpy()
    hot = np.eye(len(categories) + 1)[codes].sum(axis=1)
    return pd.DataFrame(hot, index=table.index, columns=[*categories, missing])


def join_combats(combats, pokemon):
    """Put the features of both opponents of every combat side by side (chapter 3).

    Args:
        combats: DataFrame with the columns `First_pokemon` and `Second_pokemon`, which hold
            labels of the index of `pokemon`, and perhaps others, which are not looked at.
        pokemon: DataFrame of numbers, one row for each Pokémon, its index the number (`#`) of
            each, not the row: the first Pokémon is 1.

    Returns:
        Array of float32, shape (combats, 2 * columns of `pokemon`): the features of the first
        Pokémon, then those of the second.

    Raises:
        ValueError: a column of `combats` is missing, a Pokémon is not in `pokemon` (the message
            names column and row) or stands there twice, a feature is missing or no number, or
            a table has no rows.
    """
    _require(pokemon.index.is_unique, "the table of Pokémon has the same number twice")
    _require_numbers(pokemon)
    _require(len(combats) > 0, "the table of combats has no rows")
    features = pokemon.to_numpy("float32")
    sides = []
    for name in PAIR:
        _require(name in combats, f"the combats lack the column {name!r}")
        places = pokemon.index.get_indexer(combats[name])
        _require_each(places >= 0, combats[name], "is the number of no Pokémon")
        sides.append(features[places])
    return np.concatenate(sides, axis=1)


def second_wins(combats):
    """Say of every combat who won: 0 the first Pokémon, 1 the second (chapter 3).

    Args:
        combats: DataFrame with the columns `First_pokemon`, `Second_pokemon` and `Winner`.

    Returns:
        Array of float32, shape (combats,), with the values 0 and 1.

    Raises:
        ValueError: a column is missing, the winner is neither of the two (the message names
            column and row), or both are the same Pokémon.
    """
    for name in (*PAIR, "Winner"):
        _require(name in combats, f"the combats lack the column {name!r}")
    first, second = (combats["Winner"] == combats[name] for name in PAIR)
    _require_each(first | second, combats["Winner"], "is none of the two opponents")
    _require_each(~(first & second), combats["Second_pokemon"], "fights against itself")
    return second.to_numpy("float32")


# ------------------------------------------------------------------------------- image examples


def parse_fn(example, n_classes=10):
    """Scale the picture of an example to [0, 1] and make its label one-hot (chapter 4).

    Args:
        example: dict as TensorFlow Datasets delivers it, a single one or a batch: `image`, uint8,
            shape (height, width, channels) or (batch, height, width, channels), and `label`,
            integer, shape () or (batch,).
        n_classes: number of classes; labels run from 0 to n_classes - 1.

    Returns:
        The image, float32 in [0, 1], same shape, and the label, float32, shape (n_classes,) or
        (batch, n_classes), with a single 1 at the place of the class.

    Raises:
        ValueError: `image` or `label` is missing, or has the wrong type, shape or value.
    """
    for key in ("image", "label"):
        given = isinstance(example, dict) and key in example
        _require(given, f"the example must be a dict with {key!r}")
    image, label = (tf.convert_to_tensor(example[key]) for key in ("image", "label"))
    _require(image.dtype == tf.uint8, f"'image' must be uint8, not {image.dtype.name}")
    _require(label.dtype.is_integer, f"'label' must be an integer, not {label.dtype.name}")
    _require_images_shape(image)
    _require(
        label.shape.is_compatible_with(image.shape[:-3]),
        f"'label' has shape {label.shape}, which does not go with 'image' of shape {image.shape}",
    )
    label = tf.cast(label, tf.int64)
    # Without this check, tf.one_hot would quietly make a target of nothing but zeros.
    _require(
        tf.reduce_all((label >= 0) & (label < n_classes)),
        f"'label' must be at least 0 and less than n_classes = {n_classes}",
    )
    return tf.cast(image, tf.float32) / 255.0, tf.one_hot(label, n_classes)


def centre_square(photo, size):
    """Make a photo of any size a square one: scale it and cut out the centre (chapter 9).

    The shorter side becomes `size` pixels; both ends of the longer side are cut off. Where the
    photo shrinks, a new pixel is a weighted mean of all those that it replaces: fine patterns
    fade, and do not turn into coarse ones.

    Args:
        photo: uint8, shape (height, width, 3), RGB; in a pipeline height and width may be unknown.
        size: height and width of the result, in pixels.

    Returns:
        float32 in [0, 1], shape (size, size, 3).

    Raises:
        ValueError: the photo has another type or shape or is empty, or `size` is less than 1.
    """
    photo = tf.convert_to_tensor(photo)
    _require(photo.dtype == tf.uint8, f"the photo must be uint8, not {photo.dtype.name}")
    right = photo.shape.rank == 3 and photo.shape[-1] == 3 and 0 not in photo.shape
    _require(right, f"the photo must have shape (height, width, 3), not {photo.shape}")
    _require(size >= 1, f"size must be at least 1, not {size}")
    height, width = tf.unstack(tf.shape(photo)[:2])
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    # Cut before scaling: the same but for a trace at the edges, and there is less to scale.
    square = photo[top : top + side, left : left + side]
    square = tf.image.resize(square, [size, size], antialias=True)
    return tf.clip_by_value(square / 255.0, 0.0, 1.0)


def image_array(examples, crop, size):
    """Read all images of a data set into memory, each a square of one size (chapter 11).

    The middle `crop` × `crop` pixels are cut out; a smaller image is surrounded with black. Then
    the square is scaled; where it shrinks, a new pixel is a weighted mean of those it replaces.

    Args:
        examples: `tf.data.Dataset` of dicts with `image`, uint8, shape (height, width, channels).
        crop: side of what is cut out, in pixels.
        size: side of the results, in pixels.

    Returns:
        Array of uint8, shape (n, size, size, channels), in the order of the data set.

    Raises:
        ValueError: there are no examples, they have no uint8 `image`, or a side is less than 1.
    """
    _require(min(crop, size) >= 1, f"crop and size must be at least 1, not {crop} and {size}")
    image = examples.element_spec.get("image") if isinstance(examples.element_spec, dict) else None
    usable = image is not None and image.dtype == tf.uint8
    _require(usable, f"the examples must be dicts with 'image', uint8, not {examples.element_spec}")

    def square(example):
        image = tf.image.resize_with_crop_or_pad(example["image"], crop, crop)
        image = tf.image.resize(image, (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    batches = examples.map(square, num_parallel_calls=tf.data.AUTOTUNE).batch(1000)
    images = list(batches.as_numpy_iterator())
    _require(images, "there are no examples")
    return np.concatenate(images)


def photo_folder(folder, size):
    """Read photos of one's own, from a folder that has a sub-folder for each class (chapter 9).

    Photos are turned upright as the camera noted it, and made square by `centre_square`. Whatever
    is not a photo in RGB is left out and reported. Names that begin with a dot are not looked at.

    Args:
        folder: path of the folder; a class is called as its sub-folder.
        size: height and width of the results, in pixels.

    Returns:
        images: array of uint8, shape (n, size, size, 3), class by class (so shuffle them).
        labels: array of int64, shape (n,): the place of each class in `class_names`.
        class_names: list of the names of the sub-folders, in the order of the alphabet.
        skipped: list of pairs (path, reason) of all that was left out: files, links that lead
            nowhere, and folders in the folder of a class.

    Raises:
        ValueError: there is no such folder, it has fewer than two sub-folders, or one of them
            cannot be opened or has no photo that can be used.
    """
    folder = Path(folder).expanduser()
    _require(folder.is_dir(), f"there is no folder {folder.absolute()}: {_HOW_TO_ARRANGE}")
    classes = [place for place in _visible(folder) if place.is_dir()]
    _require(len(classes) >= 2, f"{folder} has {len(classes)} sub-folders: {_HOW_TO_ARRANGE}")
    loose = (place for place in _visible(folder) if not place.is_dir())
    skipped = [(p, "lies in no sub-folder" if p.is_file() else _LEADS_NOWHERE) for p in loose]
    images = []
    for place in classes:
        photos, left_out = _read_photos(place, size)
        reasons = "; ".join(f"{file.name} {reason}" for file, reason in left_out[:3])
        _require(photos, f"{place} has no usable photo ({reasons or 'empty'}): {_HOW_TO_ARRANGE}")
        images.append(np.stack(photos))
        skipped += left_out
    labels = np.repeat(np.arange(len(classes)), [len(photos) for photos in images])
    return np.concatenate(images), labels, [place.name for place in classes], skipped


# --------------------------------------------------------------------- random changes of images


def flip(images, seed, probability=0.5):
    """Swap left and right (chapter 4).

    Args:
        images: shape ([batch,] height, width, channels), values in [0, 1].
        seed: pair of integers.
        probability: chance of each image to be changed.
    """
    return _randomly(images, seed, probability, lambda batch: tf.reverse(batch, axis=[2]))


def color(
    images,
    seed,
    probability=1.0,
    hue=0.08,
    saturation=(0.6, 1.6),
    brightness=0.05,
    contrast=(0.7, 1.3),
):
    """Shift the hue, then change saturation, brightness and contrast (chapter 4).

    Args:
        images: shape ([batch,] height, width, 3), RGB, values in [0, 1].
        seed: pair of integers.
        probability: chance of each image to be changed.
        hue: largest turn of the colour circle in either direction; 1 is a whole turn.
        saturation: smallest and largest factor of the saturation; 0 makes grey.
        brightness: largest amount added to, or taken from, every value.
        contrast: smallest and largest factor of the distance from the mean of the channel.
    """
    _require(min(*saturation, *contrast) >= 0, "saturation and contrast must not be negative")

    def adjust(batch, *numbers):
        _require(batch.shape[-1] == 3, f"color needs RGB images, not shape {batch.shape}")
        turn, vividness, light, spread = (tf.reshape(n, [-1, 1, 1, 1]) for n in numbers)
        h, s, v = tf.split(tf.image.rgb_to_hsv(batch), 3, axis=-1)
        hsv = tf.concat([(h + turn) % 1.0, tf.minimum(s * vividness, 1.0), v], axis=-1)
        batch = tf.image.hsv_to_rgb(hsv)
        mean = tf.reduce_mean(batch, axis=[1, 2], keepdims=True)
        # Light moves the mean as well, so contrast does not scale it: mean + light + spread *
        # (batch - mean), in an order that passes over the pixels only twice.
        return spread * batch + (mean - spread * mean + light)

    return _randomly(
        images,
        seed,
        probability,
        adjust,
        hue=(-hue, hue),
        saturation=saturation,
        brightness=(-brightness, brightness),
        contrast=contrast,
    )


def rotate(images, seed, probability=1.0):
    """Turn by 90, 180 or 270 degrees, each equally likely (chapter 4).

    Args:
        images: shape ([batch,] side, side, channels), values in [0, 1].
        seed: pair of integers.
        probability: chance of each image to be changed.

    Raises:
        ValueError: the images are not square: a quarter turn would change their shape.
    """

    def turn(batch, quarters):
        height, width = _height_and_width(batch)
        _require(height == width, f"rotate needs square images, not shape {batch.shape}")
        # Sine and cosine of a quarter turn are whole numbers: rounded, they move pixels exactly.
        angle = tf.floor(quarters) * (np.pi / 2)
        return _turn(batch, tf.round(tf.sin(angle)), tf.round(tf.cos(angle)))

    return _randomly(images, seed, probability, turn, quarters=(1, 4))


def zoom(images, seed, probability=1.0, scale=(0.6, 1.4)):
    """Enlarge and cut off the margin, or shrink and surround with black (chapter 4).

    Like `tf.image.resize` followed by `tf.image.resize_with_crop_or_pad`.

    Args:
        images: shape ([batch,] height, width, channels), values in [0, 1].
        seed: pair of integers.
        probability: chance of each image to be changed.
        scale: smallest and largest factor of height and width; more than 0.
    """
    _require(scale[0] > 0, f"scale must be positive, not {scale}")

    def resize(batch, factor):
        along_y, along_x = (_zoom_axis(size, factor) for size in _height_and_width(batch))
        return _warp(batch, x=(along_x[0], 0, along_x[1]), y=(0, along_y[0], along_y[1]))

    return _randomly(images, seed, probability, resize, scale=scale)


def rotate_by_angle(images, seed, probability=1.0, max_degrees=15.0):
    """Turn about the centre by any angle up to a largest one; what comes in is black.

    Args:
        images: shape ([batch,] height, width, channels), values in [0, 1].
        seed: pair of integers.
        probability: chance of each image to be changed.
        max_degrees: largest angle in either direction, in degrees.
    """

    def turn(batch, degrees):
        angle = degrees * (np.pi / 180)
        return _turn(batch, tf.sin(angle), tf.cos(angle))

    return _randomly(images, seed, probability, turn, degrees=(-max_degrees, max_degrees))


def translate(images, seed, probability=1.0, max_pixels=4):
    """Shift by whole pixels, right or left and up or down; what comes in is black.

    Args:
        images: shape ([batch,] height, width, channels), values in [0, 1].
        seed: pair of integers.
        probability: chance of each image to be changed.
        max_pixels: largest shift along either axis.
    """

    def shift(batch, right, down):
        return _warp(batch, x=(1, 0, -tf.floor(right)), y=(0, 1, -tf.floor(down)))

    pixels = (-max_pixels, max_pixels + 1)
    return _randomly(images, seed, probability, shift, right=pixels, down=pixels)


def cutout(images, seed, probability=1.0, size=8):
    """Blacken a square whose centre may lie anywhere, so that part of it may fall outside.

    Source: T. DeVries and G. W. Taylor, "Improved Regularization of Convolutional Neural Networks
    with Cutout", 2017, arXiv:1708.04552.

    Args:
        images: shape ([batch,] height, width, channels), values in [0, 1].
        seed: pair of integers.
        probability: chance of each image to be changed.
        size: side of the square in pixels, at least 1.
    """
    _require(size >= 1, f"size must be at least 1, not {size}")

    def cut(batch, down, right):
        height, width = _height_and_width(batch)
        rows = _near(height, down, size)[:, :, tf.newaxis, tf.newaxis]
        columns = _near(width, right, size)[:, tf.newaxis, :, tf.newaxis]
        return tf.where(rows & columns, 0.0, batch)

    return _randomly(images, seed, probability, cut, down=(0, 1), right=(0, 1))


def random_crop(images, seed, probability=1.0, padding=4):
    """Extend every side by its mirror image, then cut out the original size anywhere.

    Source: the padded crop of K. He et al., "Deep Residual Learning for Image Recognition", 2016,
    section 4.2, with reflection in place of zeros.

    Args:
        images: shape ([batch,] height, width, channels), values in [0, 1].
        seed: pair of integers.
        probability: chance of each image to be changed.
        padding: pixels added on every side; less than height and width.
    """

    def crop(batch, down, right):
        height, width = _height_and_width(batch)
        _require(padding < height, f"padding = {padding} must be less than the height {height}")
        _require(padding < width, f"padding = {padding} must be less than the width {width}")
        batch = tf.gather(batch, _mirrored(height, down), axis=1, batch_dims=1)
        return tf.gather(batch, _mirrored(width, right), axis=2, batch_dims=1)

    pixels = (-padding, padding + 1)
    return _randomly(images, seed, probability, crop, down=pixels, right=pixels)


BOOK_AUGMENTATION = (
    flip,
    functools.partial(color, probability=0.5),
    functools.partial(rotate, probability=0.25),
    functools.partial(zoom, probability=0.5),
)


def parse_aug_fn(example, seed, n_classes=10, augment=BOOK_AUGMENTATION):
    """Do what `parse_fn` does, then change the image at random (chapter 4; training data only).

    Use it on whole batches, which is faster than image by image:
    `with_seeds(train.batch(64), seed=1).map(parse_aug_fn, num_parallel_calls=tf.data.AUTOTUNE)`.

    Args:
        example: dict with `image` and `label`, as for `parse_fn`.
        seed: pair of integers, another one for every batch: see `with_seeds`.
        n_classes: number of classes.
        augment: functions `(images, seed) -> images`, applied in this order; the default is
            the book's: flip 0.5, color 0.5, rotate 0.25, zoom 0.5.

    Returns:
        Image and label, as from `parse_fn`.

    Raises:
        ValueError: the example or the seed is not as described.
    """
    images, labels = parse_fn(example, n_classes)
    # With one seed for all, every step would draw the same numbers: the very images that are
    # flipped would also be the ones that are recoloured.
    for step, function in enumerate(augment):
        images = function(images, tf.random.fold_in(_checked_seed(seed), step))
    return images, labels


def with_seeds(dataset, seed):
    """Pair every element of a dataset with a seed of its own, new in every epoch.

    Args:
        dataset: `tf.data.Dataset`, usually of batches.
        seed: integer; the same one gives the same seeds, epoch by epoch, in every run that
            starts with the same `keras.utils.set_random_seed`.

    Returns:
        `tf.data.Dataset` of pairs (element, seed), the seed int64 with shape (2,).
    """
    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(dataset, numbers.batch(2, drop_remainder=True))


def image_batches(examples, batch_size=64, shuffle=False, augment=(), seed=0, n_classes=10):
    """Read, shuffle, batch and augment images while the network computes (chapter 4).

    Images are changed batch by batch, after shuffling, and while the network is busy with the
    batch before, so that it hardly ever waits.

    Args:
        examples: `tf.data.Dataset` of dicts with `image` and `label`, as for `parse_fn`; they are
            kept in memory.
        batch_size: number of images in a batch; the last one may be smaller.
        shuffle: whether every epoch brings all examples in a new order.
        augment: functions `(images, seed) -> images`, as for `parse_aug_fn`; for training only.
        seed: integer that decides order and augmentation, as for `with_seeds`.
        n_classes: number of classes.

    Returns:
        `tf.data.Dataset` of batches (images, one-hot labels), as from `parse_fn`.

    Raises:
        ValueError: there are no examples (where their number is known), those to be shuffled are of
            unknown number, or they are not as `parse_fn` needs them.
    """
    n_examples = int(examples.cardinality())
    _require(n_examples != 0, "there are no examples")
    examples = examples.cache()
    if shuffle:
        _require(n_examples > 0, "examples of unknown number cannot be shuffled as a whole")
        examples = examples.shuffle(n_examples, seed=seed)
    batches = with_seeds(examples.batch(batch_size), seed)

    def parse(batch, batch_seed):
        return parse_aug_fn(batch, batch_seed, n_classes, augment)

    parsed = batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return parsed.prefetch(tf.data.AUTOTUNE)


# ------------------------------------------------------------------------------ objects in images

GREY = 0.5  # what surrounds a picture that does not fill its frame


class Problem(NamedTuple):
    """What is wrong with an annotation, and where; as a text it reads `file:line: reason`."""

    file: str
    line: int  # from 1
    reason: str

    def __str__(self):
        return f"{self.file}:{self.line}: {self.reason}"


def parse_voc(file, class_names, images=None):
    """Read the annotation of one image, in the XML of PASCAL VOC (chapter 12).

    The numbers of the file are pixels from the upper left corner; they are taken as edges, as
    TensorFlow Datasets does. A box with a fault is left out and reported, the others are kept:
    one whose right edge is not right of the left one, or lower edge not below the upper one, that
    reaches outside the image, whose class is unknown, or that cannot be read.

    Args:
        file: path of the file (a `pathlib.Path`, or a `zipfile.Path` inside an archive).
        class_names: the classes; their places are the labels.
        images: folder of the images, likewise; with it, the image is looked for and its size is
            compared.

    Returns:
        annotation: dict of `filename` (of the image), `size` (height and width in pixels),
            `boxes`, float32, shape (n, 4), corners relative to the image, `labels`, int64, shape
            (n,), `difficult` and `truncated`, bool, shape (n,); None where the file is no XML,
            does not say the image's name and size, or the image is not as it says.
        problems: list of `Problem`.
    """
    try:
        root = _lined_tree(file.read_bytes())
        filename, line = _text(root, "filename")
        size = tuple(_side(root, f"size/{name}") for name in ("height", "width"))
        if images is not None:
            _check_image(images / filename, size, line)
    except _AnnotationError as fault:
        return None, [fault.problem(file)]
    objects, problems = [], []
    for element in root.iterfind("object"):
        try:
            objects.append(_voc_object(element, size, class_names))
        except _AnnotationError as fault:
            problems.append(fault.problem(file))
    boxes, labels, difficult, truncated = zip(*objects, strict=True) if objects else [()] * 4
    annotation = {
        "filename": filename,
        "size": size,
        "boxes": np.reshape(boxes, (-1, 4)).astype("float32"),
        "labels": np.array(labels, "int64"),
        "difficult": np.array(difficult, bool),
        "truncated": np.array(truncated, bool),
    }
    return annotation, problems


def read_voc(annotations, images, class_names, listed=None):
    """Read the annotations of a set of images, in the XML of PASCAL VOC (chapter 12).

    Whatever has a fault is left out and reported; the rest is read.

    Args:
        annotations: folder of the XML files (a `pathlib.Path`, or a `zipfile.Path` in an archive).
        images: folder of the images, likewise.
        class_names: the classes; their places are the labels.
        listed: file with the names of the annotations to read, without ending, one a line;
            without it, all XML files are read, and images without one are reported.

    Returns:
        annotations: list of dicts as from `parse_voc`, in the order of the list, or else of the
            names.
        problems: list of `Problem`: what `parse_voc` reports, and files that are missing.
    """
    found, problems, known = [], [], set()
    for file, origin in _voc_files(annotations, listed):
        known.add(Path(file.name).stem)
        if not file.is_file():
            problems.append(Problem(*origin, f"there is no file {file}"))
            continue
        annotation, faults = parse_voc(file, class_names, images)
        found += [annotation] if annotation else []
        problems += faults
    if listed is None:
        bare = [image for image in _visible(images) if Path(image.name).stem not in known]
        problems += [Problem(str(image), 1, "the image has no annotation") for image in bare]
    return found, problems


def parse_objects(example):
    """Scale the picture of an example to [0, 1] and bring its objects into our form (chapter 12).

    Boxes are turned from (y1, x1, y2, x2) into corners; those without area are dropped.

    Args:
        example: dict as TensorFlow Datasets delivers it, a single one: `image`, uint8, shape
            (height, width, 3), and `objects`, a dict of `bbox`, float32, shape (n, 4), `label`,
            integers, shape (n,), and perhaps `is_difficult`, bool, shape (n,).

    Returns:
        The image, float32 in [0, 1], same shape, and its objects: `boxes`, `labels`, `difficult`.

    Raises:
        ValueError: the image has another type or shape.
    """
    image, given = tf.convert_to_tensor(example["image"]), example["objects"]
    _require(image.dtype == tf.uint8, f"'image' must be uint8, not {image.dtype.name}")
    right = image.shape.rank == 3 and image.shape[-1] == 3
    _require(right, f"'image' must have shape (height, width, 3), not {image.shape}")
    boxes, labels = clip_boxes(swap_xy(given["bbox"])), tf.cast(given["label"], tf.int64)
    none = tf.zeros_like(labels, tf.bool)
    objects = {
        "boxes": boxes,
        "labels": labels,
        "difficult": tf.convert_to_tensor(given.get("is_difficult", none)),
    }
    real = box_area(boxes) > 0
    objects = {name: tf.boolean_mask(values, real) for name, values in objects.items()}
    return tf.cast(image, tf.float32) / 255.0, objects


def letterbox(image, objects, size):
    """Fit a whole picture into a frame, in its own proportions, with grey on two sides.

    Args:
        image: shape (height, width, channels), values in [0, 1].
        objects: the objects in it.
        size: (height, width) of the frame in pixels, two integers.

    Returns:
        The image, float32 in [0, 1], shape (*size, channels), and the objects, with boxes relative
        to the frame.

    Raises:
        ValueError: the image is not as described.
    """
    image = _checked_images(image)
    _require(image.shape.rank == 3, f"letterbox takes one image, not shape {image.shape}")
    inner, corner = _frame(tf.shape(image)[:2], size)
    small = tf.image.resize(image, inner, antialias=True)
    beyond = tf.stack([corner, tf.constant(size) - inner - corner], axis=1)
    framed = tf.pad(small, tf.pad(beyond, [[0, 1], [0, 0]]), constant_values=GREY)
    framed = tf.ensure_shape(tf.clip_by_value(framed, 0.0, 1.0), (*size, image.shape[-1]))
    scale, shift = _shares(inner, size), _shares(corner, size)
    return framed, _with_boxes(objects, move_boxes(objects["boxes"], scale, shift))


def unletterbox_boxes(boxes, image_size, size):
    """Bring boxes from the frame of `letterbox` back to the picture.

    Args:
        boxes: shape (..., 4), corners relative to the frame.
        image_size: (height, width) of the picture in pixels.
        size: (height, width) of the frame in pixels.

    Returns:
        Tensor of the same shape: corners relative to the picture, cut off at its edges.
    """
    inner, corner = _frame(image_size, size)
    scale, shift = _shares(inner, size), _shares(corner, size)
    return clip_boxes(move_boxes(boxes, 1 / scale, -shift / scale))


def flip_objects(images, objects, seed, probability=0.5):
    """Swap left and right of images and boxes (chapter 12).

    Args:
        images: shape ([batch,] height, width, channels), values in [0, 1].
        objects: the objects in them.
        seed: pair of integers.
        probability: chance of each image to be changed.

    Returns:
        Images and objects, of the same shapes; no object is lost.
    """
    images = _checked_images(images)
    chosen, _ = _object_draws(images, seed, probability)
    boxes = tf.where(_spread(chosen, 2), flip_boxes(objects["boxes"]), objects["boxes"])
    images = tf.where(_spread(chosen, 3), tf.reverse(images, axis=[-2]), images)
    return images, _with_boxes(objects, boxes)


def jitter_objects(
    images,
    objects,
    seed,
    probability=1.0,
    scale=(0.7, 1.4),
    stretch=1.2,
    shift=0.2,
    min_visible=0.0,
):
    """Enlarge or shrink images and their boxes, stretch and shift them (chapter 12).

    What comes in from outside is grey. Boxes are cut off at the edges of the image; an object that
    has left it is dropped.

    Args:
        images: shape ([batch,] height, width, channels), values in [0, 1].
        objects: the objects in them.
        seed: pair of integers.
        probability: chance of each image to be changed.
        scale: smallest and largest factor of the size; more than 0. A picture that becomes larger
            is cropped.
        stretch: largest factor, in either direction, by which the width grows more than the
            height; at least 1.
        shift: largest shift along either axis, as a share of the image's side.
        min_visible: an object counts as gone unless more than this share of its area is left.

    Returns:
        Images and objects, of the same shapes.

    Raises:
        ValueError: a range makes no sense.
    """
    _require(scale[0] > 0, f"scale must be positive, not {scale}")
    _require(stretch >= 1, f"stretch must be at least 1, not {stretch}")
    _require(0 <= min_visible < 1, f"min_visible must lie in [0, 1), not {min_visible}")
    images, wide = _checked_images(images), math.log(stretch)
    ways = {"right": (-shift, shift), "down": (-shift, shift)}
    chosen, numbers = _object_draws(
        images, seed, probability, scale=scale, wider=(-wide, wide), **ways
    )
    factor, wider, right, down = numbers
    factors = tf.stack([factor * tf.exp(wider / 2), factor * tf.exp(-wider / 2)], axis=-1)
    # About the centre: (x - 1/2) factor + 1/2 + shift.
    shifts = 0.5 - 0.5 * factors + tf.stack([right, down], axis=-1)
    moved = move_boxes(objects["boxes"], factors[..., tf.newaxis, :], shifts[..., tf.newaxis, :])
    boxes = tf.where(_spread(chosen, 2), moved, objects["boxes"])
    images = tf.where(_spread(chosen, 3), _move_images(images, factors, shifts), images)
    return images, _with_boxes(objects, boxes, min_visible)


def on_images(change):
    """Let a change of images alone, such as `color`, stand among those of images and objects.

    Args:
        change: function `(images, seed) -> images` that leaves every pixel in its place.

    Returns:
        Function `(images, objects, seed) -> (images, objects)`.
    """
    return lambda images, objects, seed: (change(images, seed), objects)


def object_batches(examples, size, batch_size=8, shuffle=False, augment=(), seed=0, sizes=None):
    """Read, shuffle, frame, batch and augment images with objects while the network computes.

    Args:
        examples: `tf.data.Dataset` of dicts as for `parse_objects`; they are kept in memory.
        size: (height, width) in pixels of the frame that every picture is fitted into.
        batch_size: number of images in a batch; the last one may be smaller.
        shuffle: whether every epoch brings all examples in a new order.
        augment: functions `(images, objects, seed) -> (images, objects)`, applied to whole batches
            in this order; for training only.
        seed: integer that decides order and augmentation, as for `with_seeds`.
        sizes: pairs (height, width), in the proportions of `size`: pictures are fitted into the
            largest, and every batch is scaled to one of them at random (multi-scale training).

    Returns:
        `tf.data.Dataset` of batches (images, objects): float32 in [0, 1], shape (batch, height,
        width, 3), and the objects, as many for each image as the one with most objects has.

    Raises:
        ValueError: there are no examples, or they are not as `parse_objects` needs them.
    """
    n_examples = int(examples.cardinality())
    _require(n_examples != 0, "there are no examples")
    examples = examples.cache()
    if shuffle:
        _require(n_examples > 0, "examples of unknown number cannot be shuffled as a whole")
        examples = examples.shuffle(n_examples, seed=seed)

    def frame(example):
        return letterbox(*parse_objects(example), max(sizes) if sizes else size)

    def change(batch, batch_seed):
        images, objects = batch
        for step, function in enumerate(augment):
            images, objects = function(images, objects, tf.random.fold_in(batch_seed, step))
        if sizes:
            own = tf.random.fold_in(batch_seed, len(augment))
            one = tf.random.stateless_uniform([], own, 0, len(sizes), tf.int32)
            images = tf.image.resize(images, tf.gather(tf.constant(sizes), one), antialias=True)
            images = tf.clip_by_value(images, 0.0, 1.0)
        return images, objects

    framed = examples.map(frame, num_parallel_calls=tf.data.AUTOTUNE)
    nothing = {"boxes": 0.0, "labels": tf.constant(-1, tf.int64), "difficult": False}
    batches = framed.padded_batch(batch_size, padding_values=(0.0, nothing))
    changed = with_seeds(batches, seed).map(change, num_parallel_calls=tf.data.AUTOTUNE)
    return changed.prefetch(tf.data.AUTOTUNE)


# --------------------------------------------------------------- what the functions above share


def _randomly(images, seed, probability, transform, **ranges):
    """Apply `transform` to each image with `probability`, with random numbers of its own.

    `transform(batch, *numbers)` receives the chosen images, float32 with shape
    (chosen, height, width, channels), and for each of `ranges` (low, high) a vector, shape
    (chosen,), of numbers drawn uniformly from low to high.
    """
    images = _checked_images(images)
    _require(0 <= probability <= 1, f"probability must lie in [0, 1], not {probability}")
    for name, (low, high) in ranges.items():
        _require(-np.inf < low <= high < np.inf, f"{name}: no range from {low} to {high}")
    batch = tf.cast(images if images.shape.rank == 4 else images[tf.newaxis], tf.float32)

    draws = tf.random.stateless_uniform([tf.shape(batch)[0], 1 + len(ranges)], _checked_seed(seed))
    # Only the chosen images are worked on: half the probability is half the time.
    chosen = tf.where(draws[:, 0] < probability)
    _, *shares = tf.unstack(tf.gather_nd(draws, chosen), axis=1)
    numbers = [
        low + (high - low) * share
        for share, (low, high) in zip(shares, ranges.values(), strict=True)
    ]
    changed = tf.clip_by_value(transform(tf.gather_nd(batch, chosen), *numbers), 0.0, 1.0)
    batch = tf.tensor_scatter_nd_update(batch, chosen, changed)
    return tf.ensure_shape(
        tf.cast(batch if images.shape.rank == 4 else batch[0], images.dtype), images.shape
    )


def _warp(batch, x, y):
    """Fetch the pixel (x, y) of each result from another place of its image, bilinearly.

    With `x = (a, b, c)` and `y = (d, e, f)`, numbers or vectors of shape (batch,), the place is
    (a x + b y + c, d x + e y + f); outside the image everything is black.
    """
    n_images = tf.shape(batch)[:1]
    entries = [tf.broadcast_to(tf.cast(entry, tf.float32), n_images) for entry in (*x, *y, 0, 0)]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=batch,
        transforms=tf.stack(entries, axis=1),
        output_shape=tf.shape(batch)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _turn(batch, sine, cosine):
    """Turn each image counter-clockwise about its centre by the angle with this sine, cosine."""
    centre_y, centre_x = ((tf.cast(size, tf.float32) - 1) / 2 for size in _height_and_width(batch))
    return _warp(
        batch,
        x=(cosine, -sine, centre_x - cosine * centre_x + sine * centre_y),
        y=(sine, cosine, centre_y - sine * centre_x - cosine * centre_y),
    )


def _zoom_axis(size, factor):
    """Return (a, c) so that pixel x of the zoomed axis comes from a x + c of the original one."""
    size = tf.cast(size, tf.float32)
    # Resizing makes a whole number of pixels; cropping and padding move by whole pixels.
    new_size = tf.maximum(tf.floor(size * factor), 1.0)
    margin = tf.truncatediv(tf.cast(new_size - size, tf.int32), 2)
    # The centre of pixel x lies at x + 1/2.
    step = size / new_size
    return step, (tf.cast(margin, tf.float32) + 0.5) * step - 0.5


def _near(length, centre, size):
    """Mark the `size` positions around each centre, given as a share of the length.

    >>> _near(5, tf.constant([0.1, 0.5]), size=2).numpy().astype(int).tolist()
    [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]]
    """
    length = tf.cast(length, tf.float32)
    distance = tf.range(length) - tf.floor(length * centre)[:, tf.newaxis]
    return (distance >= -(size // 2)) & (distance < size - size // 2)


def _mirrored(length, shift):
    """Shift the positions 0 … length - 1, reflecting at both ends, once for each shift.

    >>> _mirrored(4, tf.constant([1.0, -2.0])).numpy().tolist()
    [[1, 2, 3, 2], [2, 1, 0, 1]]
    """
    positions = tf.range(length) + tf.cast(tf.floor(shift), tf.int32)[:, tf.newaxis]
    last = length - 1
    return last - tf.abs(last - tf.abs(positions))


def _height_and_width(batch):
    """Return height and width as integers where they are known, else as tensors."""
    return tuple(batch.shape[axis] or tf.shape(batch)[axis] for axis in (1, 2))


def _checked_images(images):
    """Return the images as a tensor, or raise ValueError that says what is wrong with them."""
    images = tf.convert_to_tensor(images)
    _require(
        images.dtype.is_floating,
        f"images must be floating point in [0, 1], not {images.dtype.name}; parse_fn converts them",
    )
    _require_images_shape(images)
    if tf.executing_eagerly():
        inside = tf.reduce_all((images >= 0) & (images <= 1))
        _require(inside, "images hold values outside [0, 1] or NaN; parse_fn scales them")
    return images


_HOW_TO_ARRANGE = "make a sub-folder for each class, at least two, with RGB photos (JPEG or PNG)"
_LEADS_NOWHERE = "is a link that leads nowhere, or no file"
_MODES = {"1": "black and white", "L": "grey", "P": "a palette", "RGBA": "RGB with transparency"}


class _NoPhotoError(Exception):
    """The message says why a file is not a photo in RGB."""


def _visible(folder):
    """Return what is in a folder, but for hidden files, in an order that is the same everywhere."""
    try:
        places = [place for place in folder.iterdir() if place.name[0] != "."]
    except OSError as error:
        raise ValueError(f"{folder} cannot be opened: {error.strerror}") from error
    return sorted(places, key=lambda place: place.name)


def _read_photos(folder, size):
    """Return the photos of a folder, and of all other files the path and the reason."""
    photos, left_out = [], []
    for file in _visible(folder):
        try:
            photos.append(_read_photo(file, size))
        except _NoPhotoError as reason:
            left_out.append((file, str(reason)))
    return photos, left_out


def _read_photo(file, size):
    """Return a photo, upright and square, as uint8, or raise `_NoPhotoError`."""
    if file.is_dir():
        raise _NoPhotoError("is a folder: photos must lie in the folder of their class itself")
    if not file.is_file():
        raise _NoPhotoError(_LEADS_NOWHERE)
    if file.stat().st_size == 0:
        raise _NoPhotoError("is empty")
    try:
        with PIL.Image.open(file) as photo:
            upright = PIL.ImageOps.exif_transpose(photo)
    except PIL.UnidentifiedImageError as error:
        raise _NoPhotoError("is no image that can be read") from error
    except Exception as error:  # what a decoder meets in a broken file has no common name
        raise _NoPhotoError(f"cannot be read: {error}") from error
    if upright.mode != "RGB":
        raise _NoPhotoError(f"is not RGB but {_MODES.get(upright.mode, upright.mode)}")
    return np.round(255.0 * centre_square(np.asarray(upright), size)).astype("uint8")


class _AnnotationError(Exception):
    """The message says what is wrong with an annotation; `line` says where."""

    def __init__(self, line, reason):
        super().__init__(reason)
        self.line = line

    def problem(self, file):
        return Problem(str(file), self.line, str(self))


def _lined_tree(content):
    """Return the tree of an XML file; every element has its line as attribute `line`."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def start(tag, _attributes):
        builder.start(tag, {"line": str(parser.CurrentLineNumber)})

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        fault = f"broken XML: {expat.ErrorString(error.code)}"
        raise _AnnotationError(error.lineno, fault) from error
    except (LookupError, ValueError) as error:  # of an encoding that nobody knows
        raise _AnnotationError(parser.CurrentLineNumber, f"broken XML: {error}") from error
    return builder.close()


def _text(element, path):
    """Return the text at a path below an element, and its line; `_AnnotationError` without it."""
    line, found = int(element.get("line")), element.find(path)
    text = "" if found is None else (found.text or "").strip()
    if not text:
        raise _AnnotationError(line, f"<{element.tag}> has no <{path}>")
    return text, int(found.get("line"))


def _number(element, path):
    """Return the number at a path below an element, and its line."""
    text, line = _text(element, path)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _AnnotationError(line, f"<{path}> is {text!r}, which is no number")
    return number, line


def _side(root, path):
    """Return a side of the image, in pixels."""
    number, line = _number(root, path)
    if number < 1:
        raise _AnnotationError(line, f"<{path}> is {number:g}: an image has at least one pixel")
    return round(number)


def _voc_object(element, size, class_names):
    """Return box, label and the flags `difficult` and `truncated` of an <object>."""
    name, line = _text(element, "name")
    if name not in class_names:
        raise _AnnotationError(line, f"unknown class {name!r}")
    x1, x2 = _edges(element, "x", size[1], "wide")
    y1, y2 = _edges(element, "y", size[0], "high")
    flags = (element.findtext(flag, "0").strip() == "1" for flag in ("difficult", "truncated"))
    return (x1, y1, x2, y2), list(class_names).index(name), *flags


def _edges(element, axis, side, word):
    """Return both edges of a box along an axis, as shares of the image's side."""
    (low, _), (high, line) = (_number(element, f"bndbox/{axis}{end}") for end in ("min", "max"))
    if high < low:
        raise _AnnotationError(line, f"{axis}max = {high:g} is less than {axis}min = {low:g}")
    if high == low:
        raise _AnnotationError(line, f"{axis}max = {axis}min = {low:g}: the box has no area")
    if low < 0 or high > side:
        where = f"from {axis} = {low:g} to {high:g}, outside the image, which is {side} {word}"
        raise _AnnotationError(line, f"the box reaches {where}")
    return low / side, high / side


def _voc_files(annotations, listed):
    """Yield the XML files to read, and the file and line that ask for each."""
    if listed is None:
        for file in _visible(annotations):
            if file.name.endswith(".xml"):
                yield file, (str(file), 1)
        return
    for line, name in enumerate(listed.read_text(encoding="utf-8").splitlines(), start=1):
        if name.strip():
            yield annotations / f"{name.strip()}.xml", (str(listed), line)


def _check_image(image, size, line):
    """Raise `_AnnotationError` unless the image is there and has this (height, width)."""
    if not image.is_file():
        raise _AnnotationError(line, f"there is no image {image}")
    try:
        with image.open("rb") as stream, PIL.Image.open(stream) as photo:
            width, height = photo.size
    except Exception as error:  # what a decoder meets in a broken file has no common name
        raise _AnnotationError(line, f"{image.name} cannot be read: {error}") from error
    if (height, width) != size:
        said = f"{size[1]} × {size[0]} pixels"
        raise _AnnotationError(line, f"{image.name} has {width} × {height}, not {said}")


def _frame(image_size, size):
    """Return height and width of a picture inside a frame, and its upper left corner (y, x)."""
    image_size, size = (tf.cast(numbers, tf.int32) for numbers in (image_size, size))
    scale = tf.reduce_min(size / image_size)
    inner = tf.cast(tf.round(tf.cast(image_size, scale.dtype) * scale), tf.int32)
    inner = tf.clip_by_value(inner, 1, size)
    return inner, (size - inner) // 2


def _shares(pixels, size):
    """Return (y, x) in pixels as shares of the frame, in the order (x, y)."""
    return tf.reverse(tf.cast(pixels, tf.float32) / tf.cast(size, tf.float32), axis=[0])


def _with_boxes(objects, boxes, min_visible=0.0):
    """Return objects with new boxes, cut off at the edges; what has left the image is dropped."""
    visible = clip_boxes(boxes)
    there = (objects["labels"] >= 0) & (box_area(visible) > min_visible * box_area(boxes))
    return objects | {
        "boxes": tf.where(there[..., tf.newaxis], visible, tf.zeros_like(visible)),
        "labels": tf.where(there, objects["labels"], -tf.ones_like(objects["labels"])),
    }


def _object_draws(images, seed, probability, **ranges):
    """Draw for each image whether it is changed, and a number from each of `ranges` (low, high).

    The draws have the shape (batch,), or () for a single image.
    """
    _require(0 <= probability <= 1, f"probability must lie in [0, 1], not {probability}")
    for name, (low, high) in ranges.items():
        _require(-np.inf < low <= high < np.inf, f"{name}: no range from {low} to {high}")
    n_draws = 1 + len(ranges)
    shape = tf.concat([tf.shape(images)[:-3], [n_draws]], axis=0)
    draws = tf.random.stateless_uniform(shape, _checked_seed(seed))
    chosen, *shares = tf.unstack(draws, n_draws, axis=-1)
    pairs = zip(shares, ranges.values(), strict=True)
    return chosen < probability, [low + (high - low) * share for share, (low, high) in pairs]


def _spread(values, n_dimensions):
    """Append dimensions of size 1, so that what belongs to an image goes with all its parts."""
    return tf.reshape(values, tf.concat([tf.shape(values), [1] * n_dimensions], axis=0))


def _move_images(images, factors, shifts):
    """Scale and shift images as `move_boxes` does with boxes; what comes in is grey."""
    batch = images if images.shape.rank == 4 else images[tf.newaxis]
    ways = []
    for axis, side in enumerate(reversed(_height_and_width(batch))):
        factor, shift = (tf.reshape(pairs[..., axis], [-1]) for pairs in (factors, shifts))
        # The centre of pixel x lies at x + 1/2.
        ways.append((1 / factor, (0.5 - shift * tf.cast(side, tf.float32)) / factor - 0.5))
    (a, c), (e, f) = ways
    moved = _warp(tf.cast(batch, tf.float32) - GREY, x=(a, 0, c), y=(0, e, f)) + GREY
    return tf.reshape(tf.cast(tf.clip_by_value(moved, 0.0, 1.0), images.dtype), tf.shape(images))


def _require_images_shape(images):
    _require(
        images.shape.rank in (3, 4),
        f"images must have shape ([batch,] height, width, channels), not {images.shape}",
    )
    _require(0 not in images.shape, f"images of shape {images.shape} are empty")


def _checked_seed(seed):
    seed = tf.convert_to_tensor(seed)
    _require(
        seed.dtype.is_integer and seed.shape == (2,),
        f"seed must be two integers, not {seed.dtype.name} of shape {seed.shape}",
    )
    return tf.cast(seed, tf.int64)


def _require_numbers(table):
    _require(len(table) > 0, "the table has no rows")
    for name, column in table.items():
        _require(pd.api.types.is_numeric_dtype(column), f"column {name!r} is not numeric")
        _require(column.notna().all(), f"column {name!r} has missing values (NaN)")


def _require_each(good, column, fault):
    """Raise ValueError that names column and row of the first value that is not good, if any."""
    for place in np.flatnonzero(~np.asarray(good))[:1]:
        where = f"column {column.name!r}, row {column.index[place]}"
        raise ValueError(f"{where}: {column.iloc[place]} {fault}")


def _require(condition, message):
    """Raise ValueError unless the condition holds; in a graph, let the running graph check it."""
    if tf.is_symbolic_tensor(condition):
        tf.debugging.Assert(condition, [message])
    elif not condition:
        raise ValueError(message)
