"""The page on TensorFlow Addons: its code gives what Addons gave, and its tables leave nothing out.

`tests/vectors/addons.json` holds for each feature some cases, recorded from Addons itself by
`tools/record_addons.py`: what the feature was given, and what it returned.
"""

import copy
import functools
import hashlib
import inspect
import json
import re
from types import SimpleNamespace
from unittest import mock

import preprocessing
from labkit.paths import ROOT

import keras
import numpy as np
import pytest
import tensorflow as tf

PAGE = (ROOT / "docs" / "tensorflow-addons.md").read_text(encoding="utf-8")
FILE = json.loads((ROOT / "tests" / "vectors" / "addons.json").read_text(encoding="utf-8"))
HEADER, VECTORS = FILE["header"], FILE["vectors"]
CASES = [(name, number) for name, cases in VECTORS.items() for number in range(len(cases))]
every_case = pytest.mark.parametrize(("name", "number"), CASES)

# Largest difference allowed, as a share of the largest number in a result. The page says why some
# differ by more.
TOLERANCE = 1e-5
LOOSE = {"image.adjust_hsv_in_yiq": 3e-3, "image.interpolate_spline": 1e-4}

# Arguments that today's features do without.
DROPPED = {"num_classes", "sparse_labels", "data_init", "optimizer", "actual_max", "preds_max"}
RENAMED = {"sn_u": "vector_u"}  # weights


def page_code(page):
    """Run the blocks of code of the page, one after another; return what they define."""
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    namespace = {"__name__": "page"}
    exec(compile("\n".join(blocks), "docs/tensorflow-addons.md", "exec"), namespace)
    return namespace


TODAY = page_code(PAGE)


# ------------------------------------------------------------------------- how a case is repeated


def unpacked(value):
    """Return {"float32": […]} as array, {"Dense": [4]} as layer, {"SGD": [0.1]} as optimizer."""
    if isinstance(value, list):
        return tuple(unpacked(entry) for entry in value)
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    for home in (keras.layers, keras.optimizers):
        if hasattr(home, kind):
            return getattr(home, kind)(*content)
    return np.asarray(content, kind)


def repeat(name, number, today=TODAY):
    """Give the code of the page what Addons was given; return its results by their names."""
    case = VECTORS[name][number]
    feature = today[name.split(".")[1]]
    known = inspect.signature(feature).parameters
    arguments = {key: unpacked(value) for key, value in case["arguments"].items()}
    dropped = {key: arguments[key] for key in DROPPED & set(arguments) - set(known)}
    kept = {key: value for key, value in arguments.items() if key not in dropped}
    return globals()[f"repeat_{case['kind']}"](feature, kept, case, dropped)


def repeat_function(feature, arguments, case, _):
    name = case.get("gradient_of")
    if not name:
        return {"value": feature(**arguments)}
    tensors = {k: tf.constant(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors[name])
        value = feature(**tensors)
        total = tf.reduce_sum(value**2)
    return {"value": value, "gradient": tape.gradient(total, tensors[name])}


def repeat_loss(feature, arguments, case, _):
    targets, predictions = (tf.constant(unpacked(case[key])) for key in ("y_true", "y_pred"))
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        value = feature(**arguments)(targets, predictions)
    return {"value": value, "gradient": tape.gradient(value, predictions)}


def repeat_metric(feature, arguments, case, _):
    batches = unpacked(case["batches"])
    if {"y_true", "values"} & set(inspect.signature(feature).parameters):
        return {"value": feature(*map(np.concatenate, zip(*batches, strict=True)), **arguments)}
    metric = feature(**arguments)
    for batch in batches:
        metric.update_state(*batch)
    return {"value": metric.result()}


def repeat_layer(feature, arguments, case, _):
    layer, inputs = feature(**arguments), unpacked(case["inputs"])
    if hasattr(layer, "state_size"):
        layer = keras.layers.RNN(layer, return_sequences=True)
    inputs = keras.tree.map_structure(tf.constant, inputs)
    layer(inputs)
    recorded = [[RENAMED.get(name, name), unpacked(value)] for name, value in case["weights"]]
    for weight in weights_of(layer):
        place = [name for name, _ in recorded].index(weight.name)
        weight.assign(recorded.pop(place)[1].reshape(weight.shape))
    assert recorded == []
    calls = len(case["results"]["outputs"])
    outputs = [layer(inputs, training=case["training"]) for _ in range(calls)]
    after = [(weight.name, np.ravel(weight)) for weight in weights_of(layer)]
    return {"outputs": outputs, "weights": sorted(after, key=lambda pair: pair[0])}


def weights_of(layer):
    return [weight for weight in layer.weights if weight.dtype == "float32"]


def repeat_optimizer(feature, arguments, case, dropped):
    """Take the steps; a callback works on the steps of the optimizer that Addons wraps."""
    used = feature(**arguments)
    variables = [keras.Variable(value) for value in unpacked(case["start"])]
    callback = used if isinstance(used, keras.callbacks.Callback) else keras.callbacks.Callback()
    optimizer = dropped["optimizer"] if callback is used else used
    callback.set_model(SimpleNamespace(trainable_variables=variables))
    callback.on_train_begin()
    steps = []
    for number, gradients in enumerate(unpacked(case["gradients"])):
        optimizer.apply([*map(tf.constant, gradients)], variables)
        callback.on_train_batch_end(number)
        steps.append([variable.numpy() for variable in variables])
    optimizer.finalize_variable_values(variables)
    callback.on_train_end()
    return {"steps": steps, "averages": [variable.numpy() for variable in variables]}


def repeat_schedule(feature, arguments, case, _):
    schedule = feature(**arguments)
    again = type(schedule)(**schedule.get_config())
    return {"values": [again(step) for step in range(len(case["results"]["values"]))]}


def repeat_callback(feature, arguments, *_):
    callback = feature(**arguments)
    callback.set_model(SimpleNamespace(stop_training=False))
    callback.on_train_begin()
    callback.on_epoch_end(0)
    return {"stop": callback.model.stop_training}


computed = functools.cache(repeat)


def compare(results, recorded, tolerance=TOLERANCE):
    """Raise AssertionError unless all results are what was recorded."""
    for key, expected in recorded.items():
        actual, expected = results[key], unpacked(expected)
        if key == "weights":
            expected = [(RENAMED.get(name, name), np.ravel(value)) for name, value in expected]
            expected.sort(key=lambda pair: pair[0])
            assert [name for name, _ in actual] == [name for name, _ in expected]
            actual, expected = ([value for _, value in pairs] for pairs in (actual, expected))
        actual, expected = keras.tree.flatten(actual), keras.tree.flatten(expected)
        assert len(actual) == len(expected), key
        for one, other in zip(map(np.asarray, actual), map(np.asarray, expected), strict=True):
            assert one.shape == other.shape, key
            scale = max(1.0, np.abs(other).max(initial=0))
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale, err_msg=key)


# ------------------------------------------------------------------------------------- the tests


@every_case
def test_code_of_the_page_gives_what_addons_gave(name, number):
    recorded = VECTORS[name][number]["results"]
    compare(computed(name, number), recorded, LOOSE.get(name, TOLERANCE))


@every_case
def test_changed_vector_is_noticed(name, number):
    recorded = VECTORS[name][number]["results"]
    for key in filter(recorded.get, recorded):
        spoiled = copy.deepcopy(recorded)
        spoil(spoiled, key)
        with pytest.raises(AssertionError):
            compare(computed(name, number), spoiled, LOOSE.get(name, TOLERANCE))


def spoil(place, key):
    """Change the last number below `place[key]`."""
    value = place[key]
    if isinstance(value, list | dict):
        return spoil(value, len(value) - 1 if isinstance(value, list) else next(iter(value)))
    place[key] = not value if isinstance(value, bool) else value + 1 + abs(value) // 10
    return None


@pytest.mark.parametrize(
    ("name", "number", "old", "new"),
    [
        ("losses.triplet_semihard_loss", 3, "margin=1.0, distance", "margin=1.01, distance"),
        ("image.rotate", 0, "sine, cosine, zero = np.sin", "sine, cosine, zero = -np.sin"),
        ("rnn.LayerNormSimpleRNNCell", 0, "epsilon=1e-5", "epsilon=1e-3"),
        ("optimizers.AdamW", 0, "weight_decay / learning_rate, **", "weight_decay, **"),
    ],
)
def test_changed_code_is_noticed(name, number, old, new):
    assert PAGE.count(old) == 1
    with pytest.raises(AssertionError):
        compare(
            repeat(name, number, page_code(PAGE.replace(old, new))),
            VECTORS[name][number]["results"],
        )


@pytest.mark.parametrize("name", ["triplet_semihard_loss", "triplet_hard_loss", "npairs_loss"])
def test_losses_and_callbacks_of_the_page_train_a_model(name):
    keras.utils.set_random_seed(0)
    labels = np.arange(32) % 4
    inputs = np.eye(4)[labels] + np.random.default_rng(0).normal(0, 0.7, (32, 4))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16), keras.layers.Dense(16)])
    model.compile("sgd", loss=TODAY[name], jit_compile=False)
    averaging = TODAY["SWA"](start_averaging=10, average_period=4)
    callbacks = [TODAY["Lookahead"](), averaging, TODAY["TimeStopping"]()]
    settings = {"epochs": 10, "batch_size": 16, "verbose": 0}
    history = model.fit(inputs, labels, callbacks=callbacks, **settings).history["loss"]
    assert history[-1] < history[0]
    assert averaging.n_averaged == 3  # after steps 10, 14 and 18 of 20, counted from 0
    for weight, average in zip(model.trainable_variables, averaging.average, strict=True):
        np.testing.assert_array_equal(weight, average)


def test_vectors_belong_to_the_script_and_the_versions():
    script = (ROOT / HEADER["recorded_by"]).read_bytes().replace(b"\r\n", b"\n")
    hint = "record again: see the head of tools/record_addons.py"
    assert hashlib.sha256(script).hexdigest() == HEADER["script_sha256"], hint
    body = json.dumps(VECTORS).encode()
    assert hashlib.sha256(body).hexdigest() == HEADER["vectors_sha256"], hint
    lines = (ROOT / "requirements-addons.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", line)[0] for line in lines if "==" in line)
    for package, version in HEADER["versions"].items():
        assert pinned[package] == version, hint


def tables():
    """Return the Addons names of each package's tables, with whether a ✓ follows."""
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        package = re.match(r".*\(`tfa\.(\w+)`\)", section).group(1)
        rows = section.split("| Addons |")[1].split("\n\n")[0].splitlines()[2:]
        cells = [row.split(" | ")[0] for row in rows]
        found[package] = re.findall(r"`(\w+)`( ✓)?", " ".join(cells))
    return found


def test_the_page_names_every_feature_once():
    for package, features in HEADER["features"].items():
        assert sorted(name for name, _ in tables()[package]) == sorted(features)


def test_a_tick_means_that_there_is_a_vector():
    ticked = [
        f"{package}.{name}" for package, names in tables().items() for name, tick in names if tick
    ]
    assert sorted(ticked) == sorted(VECTORS)
    assert len(VECTORS) >= 12


# ---------------------------------------------------------------------- the course's own functions


def drawing(shares):
    """Let the random numbers of each image be a row of `shares`; every image is chosen."""
    draws = np.concatenate([np.zeros((len(shares), 1)), shares], axis=1)
    draw = tf.constant(draws, tf.float32)
    return mock.patch.object(tf.random, "stateless_uniform", return_value=draw)


def case_with(name, **wanted):
    """Return arguments and value of the first case in which Addons was given `wanted`."""
    cases = VECTORS[name]
    case = next(c for c in cases if wanted.items() <= c["arguments"].items())
    return {k: unpacked(v) for k, v in case["arguments"].items()}, unpacked(
        case["results"]["value"]
    )


def test_rotate_by_angle_turns_as_addons_does():
    case, expected = case_with("image.rotate", interpolation="bilinear")
    with drawing((np.degrees(case["angles"])[:, np.newaxis] / 180 + 1) / 2):
        turned = preprocessing.rotate_by_angle(case["images"], (0, 0), max_degrees=180.0)
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-5)


def test_translate_shifts_as_addons_does():
    case, expected = case_with("image.translate")
    with drawing((case["translations"] + 5 + 0.5) / 11):
        shifted = preprocessing.translate(case["images"], (0, 0), max_pixels=5)
    np.testing.assert_allclose(shifted, expected, rtol=0, atol=1e-6)


def test_cutout_cuts_as_addons_does():
    case, expected = case_with("image.cutout")
    lengths = np.array(case["images"].shape[1:3])
    with drawing((case["offset"] + 0.5) / lengths):
        cut = preprocessing.cutout(case["images"], (0, 0), size=4)
    np.testing.assert_array_equal(cut, expected)
