"""Record what TensorFlow Addons computes, for `docs/tensorflow-addons.md` and its test.

Addons does not import beside Keras 3, so this script needs an environment of its own:

    python3.11 -m venv work/addons
    work/addons/bin/pip install -r requirements-addons.txt
    work/addons/bin/python tools/record_addons.py

It writes `tests/vectors/addons.json`: for each Addons feature one or more cases, each with what
the feature was given and what it returned. `--check` records again and only compares with the
file. The same versions give the same bytes.
"""

import argparse
import hashlib
import json
import os
import sys
from importlib import metadata
from pathlib import Path

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "tests" / "vectors" / "addons.json"
PINNED = ["tensorflow-addons", "tensorflow", "keras", "numpy"]
PACKAGES = [
    *("activations", "callbacks", "image", "layers", "losses", "metrics"),
    *("optimizers", "rnn", "seq2seq", "text"),
]

rng = np.random.default_rng(2026)
cases = {}


def keep(name, kind, case, results):
    """Keep a case of the feature `name`, such as "image.rotate"."""
    kept = {"kind": kind, **plain(case), "results": plain(results)}
    cases.setdefault(name, []).append(kept)


def plain(value):
    """Return what JSON can hold: an array as {"float32": [[…]]}, its numbers with seven digits."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    value = np.asarray(value)
    return {value.dtype.name: digits(value.tolist())}


def digits(value):
    """Return nested lists of numbers, or one number, with seven digits each."""
    if isinstance(value, list):
        return [digits(entry) for entry in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def addon(name):
    """Return the feature `name` of Addons."""
    package, _, feature = name.partition(".")
    return getattr(getattr(tfa, package), feature)


def normal(*shape):
    """Return normal random numbers with three decimals."""
    return rng.normal(size=shape).round(3).astype("float32")


def uniform(*shape, low=0.0, high=1.0):
    """Return evenly distributed random numbers with three decimals."""
    return rng.uniform(low, high, shape).round(3).astype("float32")


def labels(n_rows, n_classes):
    """Return integers from 0 to n_classes - 1 in random order, each at least twice if possible."""
    return rng.permutation(np.arange(n_rows) % n_classes).astype("int64")


def one_hot(numbers, n_classes):
    """Return one row a number, with a 1 at its place."""
    return np.eye(n_classes, dtype="float32")[numbers]


# ------------------------------------------------------------------- how each kind is recorded


def function(name, gradient_of=None, **arguments):
    """Call a function; where asked for, record the gradient of the squares of its result, too."""
    inputs = dict(arguments)
    with tf.GradientTape() as tape:
        if gradient_of:
            inputs[gradient_of] = tf.constant(inputs[gradient_of])
            tape.watch(inputs[gradient_of])
        value = addon(name)(**inputs)
        total = tf.reduce_sum(value**2) if gradient_of else None
    results = {"value": value}
    if gradient_of:
        results["gradient"] = tape.gradient(total, inputs[gradient_of])
    keep(name, "function", {"arguments": arguments, "gradient_of": gradient_of}, results)


def loss(name, y_true, y_pred, **arguments):
    """Call an object that Addons offers as class only; record value and gradient."""
    predicted = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        value = addon(name)(**arguments)(y_true, predicted)
    case = {"arguments": arguments, "y_true": y_true, "y_pred": y_pred}
    keep(name, "loss", case, {"value": value, "gradient": tape.gradient(value, predicted)})


def metric(name, *batches, **arguments):
    """Update a metric with each batch and take its result."""
    measured = addon(name)(**arguments)
    for batch in batches:
        measured.update_state(*batch)
    case = {"arguments": arguments, "batches": batches}
    keep(name, "metric", case, {"value": measured.result()})


def layer(name, inputs, calls=1, training=False, **arguments):
    """Give a layer random weights, call it, and record its outputs and its weights after that.

    A layer to wrap is written as {"Dense": [units]}.
    """
    made = {key: build(value) for key, value in arguments.items()}
    built = addon(name)(**made)
    if name.startswith("rnn."):
        built = tf.keras.layers.RNN(built, return_sequences=True)
    built(inputs, training=False)
    for weight in built.weights:
        is_number = weight.dtype.is_floating
        weight.assign(normal(*weight.shape) if is_number else tf.ones_like(weight))
    before = named(built)
    outputs = [built(inputs, training=training) for _ in range(calls)]
    case = {"arguments": arguments, "weights": before, "inputs": inputs, "training": training}
    keep(name, "layer", case, {"outputs": outputs, "weights": named(built)})


def build(value):
    """Return {"Dense": [4]} as a layer, {"SGD": [0.1]} as an optimizer, all else as it is."""
    if not isinstance(value, dict):
        return value
    ((kind, positional),) = value.items()
    home = tf.keras.layers if hasattr(tf.keras.layers, kind) else tf.keras.optimizers.legacy
    return getattr(home, kind)(*positional)


def named(built):
    """Return the weights of a layer as pairs of the last part of their name, and numbers."""
    weights = [(weight.name.split("/")[-1].split(":")[0], weight) for weight in built.weights]
    return [(name, weight.numpy()) for name, weight in weights if weight.dtype.is_floating]


def optimizer(name, n_steps=7, **arguments):
    """Take steps with random gradients; record the weights after each, and averages at the end."""
    used = addon(name)(**{key: build(value) for key, value in arguments.items()})
    start = [normal(3, 2), normal(2)]
    gradients = [[normal(3, 2), normal(2)] for _ in range(n_steps)]
    variables = [tf.Variable(value) for value in start]
    steps = []
    for gradient in gradients:
        used.apply_gradients(zip(map(tf.constant, gradient), variables, strict=True))
        steps.append([variable.numpy() for variable in variables])
    results = {"steps": steps}
    if isinstance(used, tfa.optimizers.AveragedOptimizerWrapper):
        used.assign_average_vars(variables)
        results["averages"] = [variable.numpy() for variable in variables]
    case = {"arguments": arguments, "start": start, "gradients": gradients}
    keep(name, "optimizer", case, results)


def schedule(name, **arguments):
    """Evaluate a schedule of the learning rate at the first steps."""
    rate = addon(name)(**arguments)
    values = [rate(tf.constant(step, tf.float32)) for step in range(25)]
    keep(name, "schedule", {"arguments": arguments}, {"values": values})


def stopping(name, **arguments):
    """Ask a callback after one epoch whether training goes on."""
    callback = addon(name)(**arguments)
    callback.set_model(tf.keras.Sequential())
    callback.model.stop_training = False
    callback.on_train_begin()
    callback.on_epoch_end(0)
    keep(name, "callback", {"arguments": arguments}, {"stop": callback.model.stop_training})


# ---------------------------------------------------------------------------- what is recorded


def record_activations():
    """Record the activation functions."""
    x = np.linspace(-3, 3, 13, dtype="float32")
    for name in ("lisht", "mish", "snake", "tanhshrink"):
        function(f"activations.{name}", "x", x=x)
    function("activations.gelu", "x", x=x)
    function("activations.gelu", "x", x=x, approximate=False)
    function("activations.rrelu", "x", x=x + 0.1, training=False)  # the slope at 0 is a convention
    # 0.5, the default limit, is one of the numbers.
    function("activations.hardshrink", "x", x=x)
    function("activations.softshrink", "x", x=x)
    function("activations.hardshrink", "x", x=x, lower=-1.3, upper=1.3)
    function("activations.softshrink", "x", x=x, lower=-1.3, upper=1.3)
    function("activations.snake", x=x, frequency=0.7)
    function("activations.sparsemax", "logits", logits=normal(4, 6))


def record_images():
    """Record what changes images: in [0, 1] where the course's own functions do the same."""
    images = uniform(3, 5, 7, 2)
    angles = np.array([0.3, -1.2, 2.7], "float32")
    for interpolation in ("nearest", "bilinear"):
        how = {"interpolation": interpolation}
        function("image.rotate", images=images, angles=angles, **how)
    how = {"interpolation": "bilinear", "fill_mode": "reflect"}
    function("image.rotate", images=images, angles=0.5, **how)
    shifts = np.array([[2, 1], [-3, 0], [4, -5]], "float32")
    function("image.translate", images=images, translations=shifts)
    function("image.translate", images=images, translations=shifts + 0.25, fill_mode="wrap")
    matrix = [0.9, 0.2, -0.5, -0.1, 1.1, 0.3, 0.01, -0.02]
    function("image.transform", images=images, transforms=matrix, interpolation="bilinear")
    function("image.transform", images=images, transforms=matrix, fill_value=0.5)
    colors = rng.integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    for name in ("shear_x", "shear_y"):
        function(f"image.{name}", image=colors[0], level=0.4, replace=128)
    centers = np.array([[3, 4], [0, 6], [4, 1]], "int32")
    for size in ([4, 4], [2, 6]):
        mask_size = np.array(size, "int32")
        function("image.cutout", images=images, mask_size=mask_size, offset=centers)
    # Images of fewer pixels than there are values would come back unchanged.
    dark = rng.integers(20, 90, (2, 18, 18, 3)).astype("uint8")
    function("image.equalize", image=dark)
    for name in ("mean_filter2d", "median_filter2d"):
        function(f"image.{name}", image=images)
        function(f"image.{name}", image=images, filter_shape=[3, 5])
    function("image.gaussian_filter2d", image=images, filter_shape=[3, 5], sigma=1.5)
    shifts = {"delta_hue": 0.7, "scale_saturation": 1.3, "scale_value": 0.8}
    function("image.adjust_hsv_in_yiq", image=uniform(2, 4, 4, 3), **shifts)
    function("image.dense_image_warp", image=images, flow=2 * normal(3, 5, 7, 2))
    places = uniform(3, 6, 2, low=-1, high=7)
    function("image.interpolate_bilinear", grid=images, query_points=places)
    function("image.resampler", data=images, warp=places)
    points, values = uniform(2, 8, 2), normal(2, 8, 3)
    known = {"train_points": points, "train_values": values, "query_points": uniform(2, 5, 2)}
    for order in (1, 2, 3):
        function("image.interpolate_spline", order=order, **known)
    blobs = (uniform(9, 11) > 0.5).astype("uint8")
    function("image.connected_components", images=blobs)
    function("image.euclidean_dist_transform", images=blobs)


def record_losses():
    """Record losses with their gradient."""
    targets, probabilities = (
        (uniform(4, 3) > 0.5).astype("float32"),
        uniform(4, 3, low=0.05, high=0.95),
    )
    focal = "losses.sigmoid_focal_crossentropy"
    function(focal, "y_pred", y_true=targets, y_pred=probabilities)
    function(focal, "y_pred", y_true=targets, y_pred=probabilities, alpha=0.4, gamma=1.5)
    function(focal, "y_pred", y_true=targets, y_pred=normal(4, 3), from_logits=True)
    distances = uniform(6, high=2.0)
    function("losses.contrastive_loss", "y_pred", y_true=labels(6, 2), y_pred=distances)
    function("losses.contrastive_loss", "y_pred", y_true=labels(6, 2), y_pred=distances, margin=0.5)
    embeddings = {"y_true": labels(10, 3), "y_pred": 0.5 * normal(10, 4)}
    for name in ("triplet_semihard_loss", "triplet_hard_loss"):
        for metric_name in ("L2", "squared-L2", "angular"):
            how = {"margin": 0.6, "distance_metric": metric_name}
            function(f"losses.{name}", "y_pred", **embeddings, **how)
        function(f"losses.{name}", "y_pred", **embeddings)
        # Batches with a single class, and with classes of one example.
        function(f"losses.{name}", y_true=np.zeros(10, int), y_pred=embeddings["y_pred"])
        lonely = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
        function(f"losses.{name}", y_true=lonely, y_pred=embeddings["y_pred"])
    function("losses.triplet_hard_loss", "y_pred", **embeddings, soft=True)
    structure = {"labels": embeddings["y_true"], "embeddings": tf.constant(embeddings["y_pred"])}
    function("losses.lifted_struct_loss", "embeddings", **structure)
    function("losses.npairs_loss", "y_pred", y_true=labels(5, 3), y_pred=normal(5, 5))
    tags = one_hot(labels(5, 3), 4) + one_hot(np.full(5, 3), 4)
    function("losses.npairs_multilabel_loss", "y_pred", y_true=tags, y_pred=normal(5, 5))
    corner = uniform(2, 6, 2)
    boxes = np.concatenate([corner, corner + uniform(2, 6, 2, low=0.1)], axis=-1)
    for mode in ("giou", "iou"):
        function("losses.giou_loss", "y_pred", y_true=boxes[0], y_pred=boxes[1], mode=mode)
    numbers = normal(2, 5, 3)
    function("losses.pinball_loss", "y_pred", y_true=numbers[0], y_pred=numbers[1], tau=0.1)
    logits = normal(4, 5)
    known = {"sparsemax": tfa.activations.sparsemax(logits), "labels": one_hot(labels(4, 5), 5)}
    function("losses.sparsemax_loss", "logits", logits=logits, **known)
    grades = one_hot(labels(8, 4), 4), tf.nn.softmax(normal(8, 4)).numpy()
    for weightage in ("quadratic", "linear"):
        loss("losses.WeightedKappaLoss", *grades, num_classes=4, weightage=weightage)


def record_layers():
    """Record layers with random weights."""
    images = normal(2, 3, 4, 8)
    layer("layers.GroupNormalization", images, groups=4)
    layer("layers.InstanceNormalization", images)
    layer("layers.FilterResponseNormalization", images)
    for steps in (1, 3):
        power = {"power_iterations": steps, "calls": 3}
        layer(
            "layers.SpectralNormalization",
            normal(5, 6),
            training=True,
            layer={"Dense": [4]},
            **power,
        )
    layer("layers.SpectralNormalization", images, training=True, layer={"Conv2D": [3, 3]})
    layer("layers.SpectralNormalization", images, layer={"Conv2D": [3, 3]})
    layer("layers.WeightNormalization", normal(5, 6), layer={"Dense": [4]}, data_init=False)
    layer("layers.WeightNormalization", images, layer={"Conv2D": [3, 3]}, data_init=False)
    layer("layers.Maxout", normal(4, 6), num_units=2)
    layer("layers.StochasticDepth", [images, normal(2, 3, 4, 8)], survival_probability=0.8)
    layer("layers.EmbeddingBag", labels(12, 5).reshape(4, 3), input_dim=5, output_dim=2)
    sizes = {1: [3], 2: [2, 3], 3: [2, 3, 4]}
    shapes = {1: (2, 6, 3), 2: (2, 4, 6, 3), 3: (2, 4, 6, 4, 2)}
    for n_axes, size in sizes.items():
        for kind in ("Average", "Max"):
            name = f"layers.Adaptive{kind}Pooling{n_axes}D"
            layer(name, normal(*shapes[n_axes]), output_size=size)


def record_metrics():
    """Record metrics, in two batches."""
    truth, guess = labels(20, 4), uniform(20, 4)
    guess[np.arange(20), truth] += 0.4
    classes = one_hot(truth, 4), guess / guess.sum(axis=1, keepdims=True)
    halves = [tuple(values[part] for values in classes) for part in (slice(0, 12), slice(12, 20))]
    for average in (None, "micro", "macro", "weighted"):
        metric("metrics.F1Score", *halves, num_classes=4, average=average)
    metric("metrics.F1Score", *halves, num_classes=4, average="macro", threshold=0.3)
    metric("metrics.FBetaScore", *halves, num_classes=4, average="macro", beta=2.0)
    numbers = [(true.argmax(1), predicted.argmax(1)) for true, predicted in halves]
    for weightage in (None, "linear", "quadratic"):
        how = {"num_classes": 4, "sparse_labels": True, "weightage": weightage}
        metric("metrics.CohenKappa", *numbers, **how)
    metric("metrics.MatthewsCorrelationCoefficient", *halves, num_classes=4)
    metric("metrics.HammingLoss", *halves, mode="multiclass")
    metric("metrics.HammingLoss", *halves, mode="multilabel", threshold=0.3)
    function("metrics.hamming_distance", actuals=truth, predictions=labels(20, 4))
    tags = [((uniform(9, 3) > 0.5).astype(int), (uniform(9, 3) > 0.5).astype(int)) for _ in "12"]
    metric("metrics.MultiLabelConfusionMatrix", *tags, num_classes=3)
    values = [(normal(11, 2), normal(11, 2)) for _ in range(2)]
    values = [(true, true + 0.5 * noise) for true, noise in values]
    for multioutput in ("raw_values", "uniform_average", "variance_weighted"):
        metric("metrics.RSquare", *values, multioutput=multioutput)
    single = [(true[:, :1], predicted[:, :1]) for true, predicted in values]
    metric("metrics.RSquare", *single, num_regressors=3)
    positive = [(uniform(6, low=0.1),), (uniform(4, low=0.1),)]
    metric("metrics.GeometricMean", *positive)
    metric("metrics.HarmonicMean", *positive)
    ranks = [rng.integers(0, 9, (2, 15)).astype("float32") for _ in "12"]
    ranks = [(true, true + noise) for true, noise in ranks]
    limits = {"actual_max": 20.0, "preds_max": 20.0}
    for name in ("KendallsTauB", "KendallsTauC", "SpearmansRank"):
        metric(f"metrics.{name}", *ranks, **limits)


def record_optimizers():
    """Record optimizers and schedules."""
    optimizer("optimizers.AdamW", weight_decay=0.02, learning_rate=0.1)
    optimizer("optimizers.SGDW", weight_decay=0.02, learning_rate=0.1, momentum=0.9)
    optimizer("optimizers.LAMB", learning_rate=0.1)
    optimizer("optimizers.Lookahead", optimizer={"SGD": [0.1]}, sync_period=3, slow_step_size=0.4)
    how = {"start_averaging": 2, "average_period": 2}
    optimizer("optimizers.SWA", optimizer={"SGD": [0.1]}, **how)
    how = {"average_decay": 0.8, "start_step": 1}
    optimizer("optimizers.MovingAverage", optimizer={"SGD": [0.1]}, **how)
    rates = {"initial_learning_rate": 0.01, "maximal_learning_rate": 0.1, "step_size": 4.0}
    schedule("optimizers.TriangularCyclicalLearningRate", **rates)
    schedule("optimizers.Triangular2CyclicalLearningRate", **rates)
    schedule("optimizers.ExponentialCyclicalLearningRate", gamma=0.9, **rates)


def record_sequences():
    """Record cells, losses of sequences, and conditional random fields."""
    for name in ("LayerNormLSTMCell", "LayerNormSimpleRNNCell", "PeepholeLSTMCell"):
        layer(f"rnn.{name}", normal(3, 4, 5), units=2)
    logits, targets = normal(3, 5, 4), labels(15, 4).reshape(3, 5)
    lengths = np.array([5, 3, 1])
    weights = (np.arange(5) < lengths[:, None]).astype("float32")
    known = {"targets": targets, "weights": weights}
    function("seq2seq.sequence_loss", "logits", logits=logits, **known)
    function("seq2seq.hardmax", logits=logits)
    function("seq2seq.tile_batch", t=normal(3, 2), multiplier=2)
    field = {"sequence_lengths": lengths, "transition_params": normal(4, 4)}
    known = {"inputs": logits, "tag_indices": targets, **field}
    likelihood = addon("text.crf_log_likelihood")(**known)[0]
    keep("text.crf_log_likelihood", "function", {"arguments": known}, {"value": likelihood})
    known = {"score": logits[0], "transition_params": field["transition_params"]}
    best = addon("text.viterbi_decode")(**known)
    keep("text.viterbi_decode", "function", {"arguments": known}, {"value": best[0]})


def record():
    """Record everything; return the text of the file."""
    record_activations()
    record_images()
    record_losses()
    record_layers()
    record_metrics()
    record_optimizers()
    record_sequences()
    stopping("callbacks.TimeStopping", seconds=0)
    stopping("callbacks.TimeStopping", seconds=3600)
    body = json.dumps(cases)
    script = Path(__file__).read_bytes().replace(b"\r\n", b"\n")
    header = {
        "recorded_by": "tools/record_addons.py",
        "script_sha256": hashlib.sha256(script).hexdigest(),
        "vectors_sha256": hashlib.sha256(body.encode()).hexdigest(),
        "versions": {package: metadata.version(package) for package in PINNED},
        "features": {package: features(getattr(tfa, package)) for package in PACKAGES},
    }
    lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
    return (
        f'{{"header": {json.dumps(header, indent=1)},\n"vectors": {{\n'
        + ",\n".join(lines)
        + "\n}}\n"
    )


def features(package):
    """Return the names that a package of Addons offers, without those of its modules."""
    return [
        name
        for name, value in sorted(vars(package).items())
        if not name.startswith("_") and not isinstance(value, type(tfa))
    ]


def main():
    """Write the vectors, or compare them with the file."""
    parser = argparse.ArgumentParser(description="Record test vectors from TensorFlow Addons.")
    parser.add_argument("--check", action="store_true", help="only compare with the file")
    text = record()
    if parser.parse_args().check:
        same = VECTORS.exists() and VECTORS.read_text(encoding="utf-8") == text
        print("the same" if same else f"{VECTORS} holds something else")
        return not same
    VECTORS.parent.mkdir(parents=True, exist_ok=True)
    VECTORS.write_bytes(text.encode())
    print(f"{len(cases)} features, {len(text) / 1000:.0f} kB -> {VECTORS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
