import doctest
import functools
import inspect
from unittest import mock

import preprocessing
from preprocessing import (
    BOOK_AUGMENTATION,
    HOUSE_COLUMNS,
    color,
    cutout,
    flip,
    image_batches,
    parse_aug_fn,
    parse_fn,
    parse_houses,
    random_crop,
    rotate,
    rotate_by_angle,
    split_rows,
    standardize,
    translate,
    with_seeds,
    zoom,
)

import hypothesis.strategies as st
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from scipy import ndimage, stats

CHANGES = [flip, color, rotate, zoom, rotate_by_angle, translate, cutout, random_crop]
every_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2)

# The tests of chance have fixed seeds: they pass or fail for good. A right function had one chance
# in a million to be refused when they were written.
UNLIKELY = 1e-6

# The smallest and the largest number that a draw from [0, 1) can give.
LOWEST, HIGHEST = 0.0, float(np.nextafter(np.float32(1), np.float32(0)))


def make_images(*shape, low=0.0, high=1.0):
    return np.random.default_rng(0).uniform(low, high, shape).astype("float32")


def make_examples(n=10, side=8):
    images = np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype="uint8")
    return {"image": images, "label": np.arange(n) % 10}


def always(number):
    """Let every random number be `number`, so that a function can be compared with a reference."""
    return mock.patch.object(
        tf.random, "stateless_uniform", lambda shape, _: tf.fill(shape, number)
    )


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def test_examples_in_the_docstrings():
    results = doctest.testmod(preprocessing)
    assert results.attempted >= 3
    assert results.failed == 0


# ----------------------------------------------------------------------------------- tables


@few
@given(st.integers(3, 5000), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0))
def test_splits_are_disjoint_cover_everything_and_have_the_right_size(n_rows, weights, seed):
    fractions = [weight / sum(weights) for weight in weights]
    try:
        parts = split_rows(n_rows, fractions, seed)
    except ValueError:
        assert min(fractions) * n_rows < 1
        return
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n_rows))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * n_rows) < 1
    for part, again in zip(parts, split_rows(n_rows, fractions, seed), strict=True):
        np.testing.assert_array_equal(part, again)


def test_split_of_the_book():
    assert [len(part) for part in split_rows(21613)] == [12967, 4323, 4323]
    assert [len(part) for part in split_rows(10, (0.7, 0.2, 0.1))] == [7, 2, 1]
    assert not np.array_equal(split_rows(100, seed=0)[0], split_rows(100, seed=1)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "empty"),
        ((2,), "empty"),
        ((10, (0.5, 0.6)), "add up to 1"),
        ((10, (1.2, -0.2)), "positive"),
        ((10, (float("nan"), 1.0)), "positive"),
        ((10, (1.0, float("nan"))), "add up to 1"),
    ],
)
def test_split_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_rows(*arguments)


def make_houses(n=5):
    rng = np.random.default_rng(0)
    houses = pd.DataFrame({name: rng.integers(1, 99, n) for name in HOUSE_COLUMNS})
    houses["date"] = ["20141013T000000", "20150225T000000", "20140502", "20141231", "20150101"][:n]
    houses["waterfront"] = rng.random(n) < 0.5
    return houses


def test_houses_become_numbers():
    raw = make_houses()
    before = raw.copy(deep=True)
    houses = parse_houses(raw)
    pd.testing.assert_frame_equal(raw, before)
    assert houses.shape == (5, 22)
    assert set(houses.dtypes) == {np.dtype("float64")}
    assert not {"id", "date"} & set(houses.columns)
    assert houses["year"].tolist() == [2014, 2015, 2014, 2014, 2015]
    assert houses["month"].tolist() == [10, 2, 5, 12, 1]
    assert houses["day"].tolist() == [13, 25, 2, 31, 1]
    unchanged = [name for name in HOUSE_COLUMNS if name not in ("id", "date")]
    np.testing.assert_array_equal(houses[unchanged], raw[unchanged].astype("float64"))


def test_real_dates_and_text_give_the_same_houses():
    raw = make_houses()
    dates = pd.to_datetime(raw["date"].str[:8])
    expected = parse_houses(raw)
    pd.testing.assert_frame_equal(parse_houses(raw.assign(date=dates)), expected)
    pd.testing.assert_frame_equal(parse_houses(raw.assign(date=dates.dt.date)), expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda houses: houses.drop(columns=["grade", "lat"]), "grade.*lat"),
        (lambda houses: houses.iloc[:0], "no rows"),
        (lambda houses: houses.assign(price=[1.0, 2.0, np.nan, 4.0, 5.0]), "price.*NaN"),
        (lambda houses: houses.assign(view="good"), "view.*not numeric"),
        (lambda houses: houses.assign(date="yesterday"), "date.*yesterday"),
        (lambda houses: houses.assign(date="20141332"), "date.*20141332"),
        (lambda houses: houses.assign(date=pd.NaT), "date.*NaT"),
    ],
)
def test_houses_are_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        parse_houses(spoil(make_houses()))


@few
@given(st.integers(2, 50), st.integers(1, 5), st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
def test_standardize_uses_the_training_rows_only(n_rows, n_columns, mean, deviation):
    rng = np.random.default_rng(0)
    train, test = rng.normal(mean, deviation, (2, n_rows, n_columns))
    train_z, test_z, scaler = standardize(train, test)
    assert_close(train_z.mean(axis=0), 0, 1e-6)
    assert_close(train_z.std(axis=0), 1, 1e-6)
    assert_close(test_z, (test - train.mean(axis=0)) / train.std(axis=0), 1e-6)
    np.testing.assert_array_equal(standardize(train, test * 1000)[0], train_z)
    np.testing.assert_allclose(scaler.inverse_transform(test_z), test, rtol=1e-6, atol=1e-6)


def test_standardize_keeps_frames_and_does_not_change_its_input():
    train = pd.DataFrame({"a": [1, 2, 3], "b": [5.0, 5.0, 5.0]}, index=[7, 8, 9])
    test = pd.DataFrame({"a": [2], "b": [6.0]}, index=[1])
    before = train.copy(deep=True)
    train_z, test_z, _ = standardize(train, test)
    pd.testing.assert_frame_equal(train, before)
    assert train_z.index.tolist() == [7, 8, 9]
    assert test_z.columns.tolist() == ["a", "b"]
    assert train_z["b"].tolist() == [0, 0, 0], "a constant column is shifted only"
    assert test_z.loc[1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (([[1.0], [np.nan]],), "column 0 .*NaN"),
        (([[1.0]], [[np.nan]]), "column 0 .*NaN"),
        ((np.zeros((0, 2)),), "no rows"),
        ((np.zeros(3),), "2D"),
        ((pd.DataFrame({"a": ["x"]}),), "'a' is not numeric"),
        ((pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})), "(?s)feature names.*b"),
        ((np.zeros((2, 2)), np.zeros((2, 3))), "features"),
    ],
)
def test_standardize_refuses(tables, message):
    with pytest.raises(ValueError, match=message):
        standardize(*tables)


# ----------------------------------------------------------------------------- image examples


def test_parse_fn_scales_and_encodes():
    image = np.array([[[0, 51, 255]]], dtype="uint8")
    scaled, label = parse_fn({"image": image, "label": 2}, n_classes=4)
    assert_close(scaled, [[[0, 0.2, 1]]], 1e-7)
    assert scaled.dtype == label.dtype == tf.float32
    assert label.numpy().tolist() == [0, 0, 1, 0]


@few
@given(st.integers(1, 300), st.sampled_from(["uint8", "int32", "int64"]), st.data())
def test_parse_fn_keeps_every_label(n_classes, dtype, data):
    top = min(n_classes, 256) - 1
    labels = data.draw(st.lists(st.integers(0, top), min_size=1, max_size=5))
    images = np.zeros((len(labels), 2, 3, 1), "uint8")
    _, encoded = parse_fn({"image": images, "label": np.array(labels, dtype)}, n_classes)
    assert encoded.shape == (len(labels), n_classes)
    np.testing.assert_array_equal(tf.argmax(encoded, axis=1), labels)
    np.testing.assert_array_equal(tf.reduce_sum(encoded, axis=1), 1)


BAD_EXAMPLES = [
    ({"label": 0}, "'image'"),
    ({"image": np.zeros((2, 2, 3), "uint8")}, "'label'"),
    ((np.zeros((2, 2, 3), "uint8"), 0), "dict"),
    ({"image": np.zeros((2, 2, 3), "float32"), "label": 0}, "uint8, not float32"),
    ({"image": np.zeros((2, 2), "uint8"), "label": 0}, r"shape.*\(2, 2\)"),
    ({"image": np.zeros((0, 2, 2, 3), "uint8"), "label": np.zeros(0, int)}, "empty"),
    ({"image": np.zeros((2, 2, 3), "uint8"), "label": 1.0}, "integer, not float"),
    ({"image": np.zeros((2, 2, 3), "uint8"), "label": [1]}, "'label' has shape"),
    ({"image": np.zeros((3, 2, 2, 3), "uint8"), "label": [1, 2]}, "'label' has shape"),
]


@pytest.mark.parametrize(("example", "message"), BAD_EXAMPLES)
def test_parse_fn_refuses_bad_examples_at_once_and_when_traced(example, message):
    with pytest.raises(ValueError, match=message):
        parse_fn(example)
    with pytest.raises(ValueError, match=message):
        tf.function(lambda: parse_fn(example)).get_concrete_function()


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_out_of_range_is_noticed_everywhere(label):
    example = {"image": np.zeros((2, 2, 3), "uint8"), "label": label}
    with pytest.raises(ValueError, match="n_classes = 10"):
        parse_fn(example)
    dataset = tf.data.Dataset.from_tensors(example).map(parse_fn)
    with pytest.raises(tf.errors.InvalidArgumentError, match="n_classes = 10"):
        list(dataset)


# ------------------------------------------------------------ what holds for every random change


@every_change
@few
@given(data=st.data())
def test_shape_type_and_range_are_kept(change, data):
    side = st.integers(5, 12)
    height = data.draw(side)
    width = height if change is rotate else data.draw(side)
    channels = 3 if change is color else data.draw(st.integers(1, 4))
    batch = data.draw(st.sampled_from([(), (1,), (4,)]))
    dtype = data.draw(st.sampled_from([tf.float16, tf.bfloat16, tf.float32, tf.float64]))
    images = tf.cast(make_images(*batch, height, width, channels), dtype)
    probability = data.draw(st.floats(0, 1))
    changed = change(images, data.draw(seeds), probability=probability)
    assert changed.shape == images.shape
    assert changed.dtype == dtype
    assert tf.reduce_min(changed) >= 0
    assert tf.reduce_max(changed) <= 1


@every_change
def test_same_seed_same_result_in_every_mode(change):
    images, seed = make_images(6, 8, 8, 3), (3, 4)
    eager = change(images, seed)
    graph = tf.function(change)(tf.constant(images), tf.constant(seed))
    unknown_sizes = tf.function(
        change,
        input_signature=[
            tf.TensorSpec((None, None, None, 3), tf.float32),
            tf.TensorSpec((2,), tf.int64),
        ],
    )
    dataset = tf.data.Dataset.from_tensors((images, seed)).map(change)
    assert dataset.element_spec.shape == images.shape
    for other in (graph, unknown_sizes(images, seed), *dataset):
        assert_close(other, eager, 1e-6)
    assert_close(change(images, seed), eager, 0)
    assert not np.array_equal(change(images, (3, 5)), eager)


@every_change
@few
@given(seed=seeds)
def test_one_image_is_a_batch_of_one(change, seed):
    image = make_images(6, 6, 3)
    assert_close(change(image, seed), change(image[np.newaxis], seed)[0], 0)


@every_change
def test_each_image_of_a_batch_draws_its_own_numbers(change):
    copies = np.repeat(make_images(1, 8, 8, 3), 20, axis=0)
    changed = change(copies, (1, 2)).numpy()
    assert len(np.unique(changed.reshape(20, -1), axis=0)) > 1


# A shift by 0 pixels changes nothing: one of 81 shifts.
VISIBLE = {translate: 80 / 81, random_crop: 80 / 81}


def count_changed(change, images):
    changed = change(images, (11, 12)).numpy()
    return int((changed != images).any(axis=(1, 2, 3)).sum())


def chance(count, n, probability):
    return stats.binomtest(count, n, probability).pvalue


@every_change
@pytest.mark.parametrize("probability", [0.0, 0.25, 0.9, 1.0])
def test_probability_is_what_it_says(change, probability):
    images = np.repeat(make_images(1, 5, 5, 3, low=0.2, high=0.8), 4000, axis=0)
    change = functools.partial(change, probability=probability)
    expected = probability * VISIBLE.get(change.func, 1)
    if change.func is zoom:
        change.keywords["scale"] = (0.6, 0.79)  # 3 of 5 pixels: always visible
    count = count_changed(change, images)
    assert chance(count, len(images), expected) > UNLIKELY
    assert chance(count, len(images), abs(expected - 0.1)) < UNLIKELY, "the test can fail"


def test_the_book_s_probabilities_and_ranges_are_the_defaults():
    assert [getattr(step, "func", step) for step in BOOK_AUGMENTATION] == [
        flip,
        color,
        rotate,
        zoom,
    ]
    assert [step.keywords for step in BOOK_AUGMENTATION[1:]] == [
        {"probability": 0.5},
        {"probability": 0.25},
        {"probability": 0.5},
    ]
    defaults = {
        change: {
            name: parameter.default
            for name, parameter in inspect.signature(change).parameters.items()
            if parameter.default is not parameter.empty
        }
        for change in (flip, color, rotate, zoom)
    }
    assert defaults[flip] == {"probability": 0.5}
    assert defaults[color] == {
        "probability": 1.0,
        "hue": 0.08,
        "saturation": (0.6, 1.6),
        "brightness": 0.05,
        "contrast": (0.7, 1.3),
    }
    assert defaults[rotate] == {"probability": 1.0}
    assert defaults[zoom] == {"probability": 1.0, "scale": (0.6, 1.4)}


BAD_IMAGES = [
    (np.zeros((4, 4, 3), "uint8"), "uint8"),
    (np.zeros((4, 4), "float32"), r"shape.*\(4, 4\)"),
    (np.zeros((1, 1, 4, 4, 3), "float32"), r"shape.*\(1, 1, 4, 4, 3\)"),
    (np.zeros((0, 4, 4, 3), "float32"), "empty"),
    (np.zeros((4, 0, 3), "float32"), "empty"),
]


@every_change
@pytest.mark.parametrize(("images", "message"), BAD_IMAGES)
def test_bad_images_are_refused_at_once_and_when_traced(change, images, message):
    with pytest.raises(ValueError, match=message):
        change(images, (1, 2))
    with pytest.raises(ValueError, match=message):
        tf.function(lambda: change(images, (1, 2))).get_concrete_function()


@every_change
@pytest.mark.parametrize("value", [-0.1, 1.1, 255.0, np.nan, np.inf])
def test_bad_values_are_refused_when_called_directly(change, value):
    images = make_images(2, 8, 8, 3)
    images[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match=r"outside \[0, 1\] or NaN"):
        change(images, (1, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: flip(x, 7), "seed"),
        (lambda x: flip(x, (1, 2, 3)), "seed"),
        (lambda x: flip(x, (1.0, 2.0)), "seed"),
        (lambda x: flip(x, (1, 2), probability=1.5), r"probability.*1\.5"),
        (lambda x: flip(x, (1, 2), probability=-0.1), "probability"),
        (lambda x: flip(x, (1, 2), probability=np.nan), "probability"),
        (lambda x: color(x[..., :1], (1, 2)), "RGB"),
        (lambda x: color(x, (1, 2), hue=-0.1), "hue"),
        (lambda x: color(x, (1, 2), saturation=(1.6, 0.6)), "saturation"),
        (lambda x: color(x, (1, 2), saturation=(-1, 1)), "saturation"),
        (lambda x: color(x, (1, 2), contrast=(-1, 1)), "contrast"),
        (lambda x: color(x, (1, 2), brightness=np.inf), "brightness"),
        (lambda x: rotate(x[:, :4], (1, 2)), "square"),
        (lambda x: zoom(x, (1, 2), scale=(0, 1)), "scale"),
        (lambda x: zoom(x, (1, 2), scale=(1.4, 0.6)), "scale"),
        (lambda x: rotate_by_angle(x, (1, 2), max_degrees=-1), "degrees"),
        (lambda x: translate(x, (1, 2), max_pixels=-1), "right"),
        (lambda x: cutout(x, (1, 2), size=0), "size"),
        (lambda x: random_crop(x, (1, 2), padding=-1), "down"),
        (lambda x: random_crop(x, (1, 2), padding=8), "height 8"),
        (lambda x: random_crop(x[:, :, :6], (1, 2), padding=7), "width 6"),
    ],
)
def test_bad_parameters_are_refused_at_once_and_when_traced(call, message):
    images = make_images(2, 8, 8, 3)
    with pytest.raises(ValueError, match=message):
        call(images)
    with pytest.raises(ValueError, match=message):
        tf.function(call).get_concrete_function(tf.TensorSpec((None, 8, 8, 3), tf.float32))


# --------------------------------------------------- each change against an independent reference


@few
@given(
    saturation=st.floats(0, 3),
    contrast=st.floats(0, 3),
    hue=st.floats(0, 0.5),
    brightness=st.floats(0, 0.3),
    draw=st.sampled_from([LOWEST, HIGHEST]),
)
def test_color_is_what_tf_image_does(saturation, contrast, hue, brightness, draw):
    images = make_images(3, 4, 5, 3)
    sign = -1 if draw == LOWEST else 1
    expected = tf.image.adjust_hue(images, sign * hue)
    expected = tf.image.adjust_saturation(expected, saturation)
    expected = tf.image.adjust_brightness(expected, sign * brightness)
    expected = tf.image.adjust_contrast(expected, contrast)
    with always(draw):
        changed = color(
            images,
            (1, 2),
            probability=1.0,
            hue=hue,
            saturation=(saturation, saturation),
            brightness=brightness,
            contrast=(contrast, contrast),
        )
    assert_close(changed, tf.clip_by_value(expected, 0, 1))


def test_color_draws_evenly_from_its_ranges():
    grey = np.full((4000, 1, 1, 3), 0.5, "float32")
    neutral = {"hue": 0, "saturation": (1, 1), "brightness": 0, "contrast": (1, 1)}
    seed = (5, 6)

    light = color(grey, seed, **neutral | {"brightness": 0.05})[:, 0, 0, 0] - 0.5
    assert stats.kstest(light, stats.uniform(-0.05, 0.1).cdf).pvalue > UNLIKELY

    two_pixels = np.repeat(grey, 2, axis=1) + np.array([[-0.1], [0.1]], "float32")[:, np.newaxis]
    contrasted = color(two_pixels, seed, **neutral | {"contrast": (0.7, 1.3)})
    spread = (contrasted[:, 1] - contrasted[:, 0])[:, 0, 0] / 0.2
    assert stats.kstest(spread, stats.uniform(0.7, 0.6).cdf).pvalue > UNLIKELY

    pink = np.tile(np.array([0.8, 0.5, 0.5], "float32"), (4000, 1, 1, 1))
    hsv = tf.image.rgb_to_hsv(color(pink, seed, **neutral | {"hue": 0.08}))[:, 0, 0]
    assert (
        stats.kstest((hsv[:, 0] + 0.5) % 1 - 0.5, stats.uniform(-0.08, 0.16).cdf).pvalue > UNLIKELY
    )
    hsv = tf.image.rgb_to_hsv(color(pink, seed, **neutral | {"saturation": (0.6, 1.6)}))[:, 0, 0]
    assert stats.kstest(hsv[:, 1] / 0.375, stats.uniform(0.6, 1).cdf).pvalue > UNLIKELY


def test_flip_swaps_left_and_right():
    images = make_images(3, 4, 5, 2)
    assert_close(flip(images, (1, 2), probability=1.0), images[:, :, ::-1], 0)


def test_rotate_makes_each_quarter_turn_equally_often_and_exactly():
    images = np.repeat(make_images(1, 5, 5, 2), 3000, axis=0)
    turned = rotate(images, (1, 2)).numpy()
    counts = [
        int((turned == np.rot90(images[0], quarters)).all(axis=(1, 2, 3)).sum())
        for quarters in (1, 2, 3)
    ]
    assert sum(counts) == len(images)
    assert stats.chisquare(counts).pvalue > UNLIKELY


@few
@given(
    st.integers(5, 20),
    st.integers(5, 20),
    st.floats(0.25, 1.9),
    st.sampled_from([LOWEST, HIGHEST]),
)
def test_zoom_is_resize_then_crop_or_pad(height, width, scale, draw):
    images = make_images(2, height, width, 3)
    new_size = [int(np.float32(size) * np.float32(scale)) for size in (height, width)]
    expected = tf.image.resize_with_crop_or_pad(tf.image.resize(images, new_size), height, width)
    with always(draw):
        zoomed = zoom(images, (1, 2), scale=(scale, scale)).numpy()
    # One pixel larger: the first row (column) lies half a pixel's width nearer to the black rim.
    rows, columns = (
        int(new == size + 1) for new, size in zip(new_size, images.shape[1:], strict=False)
    )
    assert_close(zoomed[:, rows:, columns:], expected[:, rows:, columns:], 1e-4)
    assert_close(zoomed, expected, 0.5 / 6 + 1e-4)


def test_zoom_draws_evenly_from_its_range():
    white = np.ones((4000, 100, 1, 1), "float32")
    sizes = zoom(white, (1, 2), scale=(0.5, 1.0)).numpy().sum(axis=(1, 2, 3))
    assert stats.chisquare(np.unique(sizes, return_counts=True)[1]).pvalue > UNLIKELY
    assert (sizes.min(), sizes.max()) == (50, 99)


@few
@given(
    st.integers(5, 12), st.integers(5, 12), st.floats(0, 180), st.sampled_from([LOWEST, HIGHEST])
)
def test_rotate_by_angle_is_what_scipy_does(height, width, max_degrees, draw):
    images = make_images(2, height, width, 3)
    degrees = -max_degrees if draw == LOWEST else max_degrees
    expected = ndimage.rotate(
        images, degrees, axes=(1, 2), reshape=False, order=1, mode="grid-constant"
    )
    with always(draw):
        turned = rotate_by_angle(images, (1, 2), max_degrees=max_degrees)
    assert_close(turned, expected, 1e-4)


def all_windows(image, margin):
    height, width = (size - 2 * margin for size in image.shape[:2])
    shifts = range(2 * margin + 1)
    return [image[y : y + height, x : x + width] for y in shifts for x in shifts]


@pytest.mark.parametrize(
    ("change", "parameter", "padding_mode"),
    [(translate, "max_pixels", "constant"), (random_crop, "padding", "reflect")],
    ids=["translate", "random_crop"],
)
def test_every_window_of_the_padded_image_is_equally_likely(change, parameter, padding_mode):
    image = make_images(5, 6, 3)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode=padding_mode)
    changed = change(np.repeat(image[np.newaxis], 4000, axis=0), (1, 2), **{parameter: 2}).numpy()
    counts = [int((changed == w).all(axis=(1, 2, 3)).sum()) for w in all_windows(padded, 2)]
    assert sum(counts) == len(changed)
    assert stats.chisquare(counts).pvalue > UNLIKELY


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cutout_is_a_square_around_each_pixel_equally_often(size):
    height, width = 5, 7
    cut = cutout(np.ones((4000, height, width, 2), "float32"), (1, 2), size=size).numpy()
    before, after = size // 2, size - size // 2
    counts = []
    for y in range(height):
        for x in range(width):
            expected = np.ones((height, width, 2))
            expected[max(y - before, 0) : y + after, max(x - before, 0) : x + after] = 0
            counts.append(int((cut == expected).all(axis=(1, 2, 3)).sum()))
    assert sum(counts) == len(cut)
    assert stats.chisquare(counts).pvalue > UNLIKELY


# ------------------------------------------------------------------------ the whole pipeline


@few
@given(seed=seeds, single=st.booleans())
def test_parse_aug_fn_keeps_shape_range_and_label(seed, single):
    example = make_examples()
    if single:
        example = {key: value[0] for key, value in example.items()}
    expected_images, expected_labels = parse_fn(example)
    images, labels = parse_aug_fn(example, seed)
    assert_close(labels, expected_labels, 0)
    assert images.shape == expected_images.shape
    assert images.dtype == tf.float32
    assert tf.reduce_min(images) >= 0
    assert tf.reduce_max(images) <= 1


def test_parse_aug_fn_applies_any_list_of_changes_in_order():
    example = make_examples()
    plain, _ = parse_fn(example)
    assert_close(parse_aug_fn(example, (1, 2), augment=[])[0], plain, 0)
    darken, invert = (lambda x, seed: x / 2), (lambda x, seed: 1 - x)
    images, _ = parse_aug_fn(example, (1, 2), augment=[darken, invert])
    assert_close(images, 1 - plain / 2, 1e-6)


def test_the_steps_of_parse_aug_fn_decide_independently():
    example = make_examples(1000, side=4)
    plain, _ = parse_fn(example)
    twice, _ = parse_aug_fn(example, (1, 2), augment=[flip, flip])
    same = int((twice.numpy() == plain.numpy()).all(axis=(1, 2, 3)).sum())
    assert chance(same, 1000, 0.5) > UNLIKELY


@pytest.mark.parametrize("seed", [3, (1, 2, 3), (0.5, 0.5)])
def test_parse_aug_fn_refuses_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed"):
        parse_aug_fn(make_examples(), seed)


def test_parse_aug_fn_is_the_same_in_every_mode():
    example, seed = make_examples(), (8, 9)
    eager, _ = parse_aug_fn(example, seed)
    graph, _ = tf.function(parse_aug_fn)(example, tf.constant(seed))
    dataset = tf.data.Dataset.from_tensors((example, seed)).map(parse_aug_fn)
    for images in (graph, *(images for images, _ in dataset)):
        assert_close(images, eager, 1e-6)


def make_pipeline(n=22, seed=1, augment=BOOK_AUGMENTATION, **options):
    examples = tf.data.Dataset.from_tensor_slices(make_examples(n))
    return image_batches(examples, batch_size=8, augment=augment, seed=seed, **options)


def test_pipeline_keeps_order_labels_and_static_shape():
    pipeline = make_pipeline()
    images, labels = pipeline.element_spec
    assert images.shape.as_list() == [None, 8, 8, 3]
    assert labels.shape.as_list() == [None, 10]
    assert pipeline.cardinality() == 3
    labels = np.concatenate([labels for _, labels in pipeline])
    np.testing.assert_array_equal(labels.argmax(axis=1), make_examples(22)["label"])


def test_pipeline_is_new_in_every_epoch_and_the_same_in_every_run():
    def two_epochs(seed):
        keras.utils.set_random_seed(0)
        pipeline = make_pipeline(seed=seed)
        return [np.concatenate([images for images, _ in pipeline]) for _ in range(2)]

    first, second = two_epochs(seed=1)
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(two_epochs(seed=1), [first, second])
    assert not np.array_equal(two_epochs(seed=2)[0], first)


def test_pipeline_without_augmentation_leaves_images_as_they_are():
    images = np.concatenate([images for images, _ in make_pipeline(augment=())])
    np.testing.assert_array_equal(images, parse_fn(make_examples(22))[0])


def test_shuffled_pipeline_deals_every_example_anew_in_each_epoch():
    pipeline = make_pipeline(shuffle=True, augment=())
    epochs = [np.concatenate([images for images, _ in pipeline]) for _ in range(2)]
    assert not np.array_equal(*epochs)
    images, _ = parse_fn(make_examples(22))
    for epoch in epochs:
        assert sorted(epoch.sum(axis=(1, 2, 3))) == sorted(images.numpy().sum(axis=(1, 2, 3)))


def test_pipeline_needs_examples():
    examples = tf.data.Dataset.from_tensor_slices(make_examples(3))
    with pytest.raises(ValueError, match="no examples"):
        image_batches(examples.take(0))
    with pytest.raises(ValueError, match="unknown number"):
        image_batches(examples.filter(lambda example: True), shuffle=True)


def test_seeds_differ_between_elements():
    pairs = with_seeds(tf.data.Dataset.range(50), seed=1)
    elements, drawn = zip(*pairs.as_numpy_iterator(), strict=True)
    assert list(elements) == list(range(50))
    assert {seed.shape for seed in drawn} == {(2,)}
    assert len({tuple(seed) for seed in drawn}) == 50


def augment_like_the_book(image):
    """Change one image by the rules of chapter 4, with stateful random numbers and `tf.cond`."""

    def recolor():
        result = tf.image.random_hue(image, 0.08)
        result = tf.image.random_saturation(result, 0.6, 1.6)
        result = tf.image.random_brightness(result, 0.05)
        return tf.image.random_contrast(result, 0.7, 1.3)

    def turn():
        return tf.image.rot90(image, tf.random.uniform([], 1, 4, tf.int32))

    def resize():
        side = tf.cast(8 * tf.random.uniform([], 0.6, 1.4), tf.int32)
        return tf.image.resize_with_crop_or_pad(tf.image.resize(image, [side, side]), 8, 8)

    image = tf.image.random_flip_left_right(image)
    image = tf.cond(tf.random.uniform([]) < 0.5, recolor, lambda: image)
    image = tf.cond(tf.random.uniform([]) < 0.25, turn, lambda: image)
    return tf.cond(tf.random.uniform([]) < 0.5, resize, lambda: image)


def test_results_are_distributed_as_in_the_book():
    keras.utils.set_random_seed(0)
    n = 4000
    example = {"image": make_examples(1)["image"] // 2 + 64, "label": [0]}
    image = parse_fn(example)[0][0]
    book = tf.data.Dataset.range(n).map(lambda _: augment_like_the_book(image)).batch(n)
    book = next(book.as_numpy_iterator()).clip(0, 1)
    ours, _ = parse_aug_fn(
        {key: np.repeat(value, n, axis=0) for key, value in example.items()}, (1, 2)
    )
    for moment in (1, 2):
        a, b = book**moment, ours.numpy() ** moment
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / n)
        # 192 pixels: the largest of so many normal deviations stays below 5.
        assert np.abs((a.mean(axis=0) - b.mean(axis=0)) / error).max() < 5
