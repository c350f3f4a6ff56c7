"""The parts that lab 6 defines: equal to their twins, safe to save, to resume, to share out."""

import json
import os
import signal
import subprocess
import sys
import types

import labkit
from labkit import data, machine
from labkit.results import committed
from tools import cells

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from keras import layers

LAB = "06_custom_apis"
BFLOAT16 = "mixed_bfloat16" in machine._candidates()
RNG = np.random.default_rng(6)
X = RNG.normal(size=(40, 8, 8, 3)).astype("float32")
Y = keras.utils.to_categorical(RNG.integers(0, 10, 40), 10)


@pytest.fixture(scope="module")
def lab():
    return types.SimpleNamespace(**cells.load(LAB))


# --- layer, loss, metric --------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, (5, 2)])  # oneDNN errs at 1, stride 2, few channels
def test_layer_equals_its_twin(lab, padding, strides, kernel_size):
    options = {"strides": strides, "padding": padding, "activation": "gelu"}
    ours = lab.CustomConv2D(6, kernel_size, **options)
    theirs = layers.Conv2D(6, kernel_size, **options)
    images = tf.constant(X)
    theirs(images), ours(images)
    ours.set_weights([RNG.normal(size=weight.shape) for weight in theirs.get_weights()])
    theirs.set_weights(ours.get_weights())
    pair = [lab.outputs_and_gradients(layer, images) for layer in (ours, theirs)]
    assert lab.largest_difference(*pair) < 1e-5


@pytest.mark.skipif(not BFLOAT16, reason="this processor does not compute in bfloat16")
def test_layer_computes_in_bfloat16(lab):
    ours = lab.CustomConv2D(6, 3, dtype="mixed_bfloat16")
    theirs = layers.Conv2D(6, 3, dtype="mixed_bfloat16")
    theirs(X), ours(X)
    ours.set_weights(theirs.get_weights())
    assert ours(X).dtype == tf.bfloat16
    np.testing.assert_array_equal(ours(X), theirs(X))


def test_layer_can_be_made_again_from_its_settings(lab):
    options = {"strides": 2, "padding": "same", "activation": "relu", "name": "mine",
               "kernel_initializer": "he_normal", "dtype": "mixed_bfloat16"}  # fmt: skip
    config = json.loads(json.dumps(lab.CustomConv2D(6, (5, 2), **options).get_config()))
    again = lab.CustomConv2D.from_config(config)
    assert again.get_config() == lab.CustomConv2D(6, (5, 2), **options).get_config()
    assert (again.filters, again.kernel_size) == (6, (5, 2))
    for name in ("strides", "padding", "name"):
        assert getattr(again, name) == options[name]
    assert again.activation is keras.activations.relu
    assert isinstance(again.kernel_initializer, keras.initializers.HeNormal)
    assert again.dtype_policy.name == "mixed_bfloat16"


def test_layer_rejects_an_unknown_padding(lab):
    with pytest.raises(ValueError, match='"valid" or "same"'):
        lab.CustomConv2D(6, 3, padding="full")


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("size", [1.0, 300.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_equals_its_twin(lab, label_smoothing, size, weighted):
    ours = lab.CustomCrossEntropy(label_smoothing=label_smoothing)
    theirs = keras.losses.CategoricalCrossentropy(True, label_smoothing=label_smoothing)
    logits = tf.constant(size * RNG.normal(size=Y.shape), "float32")
    weights = RNG.random(len(Y)).astype("float32") if weighted else None
    pair = [lab.value_and_gradient(loss, Y, logits, weights) for loss in (ours, theirs)]
    np.testing.assert_allclose(pair[0][0], pair[1][0], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(pair[0][1], pair[1][1], atol=1e-5)


def test_loss_of_short_numbers_is_float32(lab):
    loss = lab.CustomCrossEntropy()
    assert loss(Y, tf.zeros(Y.shape, tf.bfloat16)).dtype == tf.float32
    assert lab.CustomCrossEntropy.from_config(loss.get_config()).get_config() == loss.get_config()


def test_metric_equals_its_twin(lab):
    ours, theirs = lab.CustomAccuracy(), keras.metrics.CategoricalAccuracy()
    assert float(ours.result()) == 0  # nothing seen yet
    for size in (16, 16, 8):
        outputs = Y[:size] + RNG.normal(size=(size, 10))
        for weights in (None, RNG.random(size)):
            for metric in (ours, theirs):
                metric.update_state(Y[:size], outputs, weights)
        assert float(ours.result()) == pytest.approx(float(theirs.result()), abs=1e-6)
    ours.reset_state()
    assert float(ours.result()) == 0


# --- callback -------------------------------------------------------------------------------------


def play(saver, values):
    """Return the epoch whose weight the file holds, after each epoch."""
    toy = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    saver.set_model(toy)
    saver.on_train_begin()
    kept = []
    for epoch, value in enumerate(values):
        toy.set_weights([np.full((1, 1), epoch)])
        saver.on_epoch_end(epoch, {"val_loss": value})
        toy.load_weights(saver.file)
        kept.append(int(toy.get_weights()[0][0, 0]))
    return kept


def test_save_best_keeps_the_best_epoch(lab, tmp_path):
    values = [3.0, 2.0, float("nan"), 2.5, 1.0]
    assert play(lab.SaveBest(tmp_path / "a" / "x.weights.h5"), values) == [0, 1, 1, 1, 4]
    most = lab.SaveBest(tmp_path / "b" / "x.weights.h5", mode="max")
    assert play(most, values) == [0, 0, 0, 0, 0]
    assert [file.name for file in (tmp_path / "b").iterdir()] == ["x.weights.h5"]


def test_save_best_names_what_it_could_monitor(lab, tmp_path):
    saver = lab.SaveBest(tmp_path / "x.weights.h5", "val_catrgorical_accuracy")
    with pytest.raises(ValueError, match="only loss, val_loss"):
        saver.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})


def test_save_best_killed_while_it_writes_leaves_the_file_before(lab, tmp_path, monkeypatch):
    saver = lab.SaveBest(tmp_path / "x.weights.h5")
    play(saver, [1.0])
    before = saver.file.read_bytes()

    def die(self, file):
        file.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save_weights", die)
    with pytest.raises(KeyboardInterrupt):
        saver.on_epoch_end(1, {"val_loss": 0.5})
    assert saver.file.read_bytes() == before


# --- training step and model ----------------------------------------------------------------------


def make(lab, kind, convolution=layers.Conv2D):
    inputs = keras.Input((8, 8, 3))
    features = convolution(8, 3, activation="relu")(inputs)
    return kind(inputs, layers.Dense(10, kernel_regularizer="l2")(layers.Flatten()(features)))


def test_model_equals_its_twin(lab):
    ours, theirs = make(lab, lab.CustomModel), make(lab, keras.Model)
    ours.set_weights(theirs.get_weights())
    reported = []
    for model in (ours, theirs):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
        history = model.fit(
            X, Y, sample_weight=np.linspace(0, 2, 40), batch_size=16, epochs=3, shuffle=False,
            validation_data=(X, Y), verbose=0,
        )  # fmt: skip
        reported.append(history.history)
    norms = reported[0].pop("gradient_norm")
    assert min(norms) > 0
    assert set(reported[0]) == set(reported[1])  # validation reports no gradient
    for name in reported[0]:
        np.testing.assert_allclose(reported[0][name], reported[1][name], atol=1e-5)
    assert lab.largest_difference(ours.get_weights(), theirs.get_weights()) < 1e-5


def test_gradient_norm_does_not_depend_on_loss_scaling(lab):
    norms = []
    for wrap in (lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer):
        keras.utils.set_random_seed(1)
        model, optimizer = make(lab, keras.Model), wrap(keras.optimizers.SGD(0.1))
        optimizer.build(model.trainable_variables)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        norms.append(float(lab.gradient_step(model, optimizer, loss, X, Y)[2]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_network_of_own_parts_survives_its_file(lab, tmp_path):
    network = lab.make_network(lab.CustomConv2D, lab.CustomModel, share=0.0625, name="own")
    network.compile(
        "adam", lab.CustomCrossEntropy(label_smoothing=0.1), metrics=[lab.CustomAccuracy()]
    )
    images, targets = np.zeros((4, 32, 32, 3), "float32"), Y[:4]
    network.fit(images, targets, verbose=0)
    network.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(tmp_path / "own.keras")
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in network.layers]
    assert loaded.loss.get_config() == network.loss.get_config()
    expected = network.evaluate(images, targets, verbose=0, return_dict=True)
    assert loaded.evaluate(images, targets, verbose=0, return_dict=True) == pytest.approx(expected)
    loaded.fit(images, targets, verbose=0)
    assert int(loaded.optimizer.iterations) == 2


# --- resuming -------------------------------------------------------------------------------------


def fit(lab, home, epochs, kill=False):
    """Train a model of own parts as the lab does; return it, its history, and the SaveBest."""
    os.environ["LABS_HOME"] = str(home)
    run = labkit.start("toy")
    keras.utils.set_random_seed(1)
    model = make(lab, lab.CustomModel, lab.CustomConv2D)
    model.compile(
        "adam", lab.CustomCrossEntropy(label_smoothing=0.1), metrics=[lab.CustomAccuracy()]
    )
    saver = lab.SaveBest(home / "best.weights.h5", "val_accuracy", "max")

    def die(batch, logs):
        if kill and len(run._trainings[0].epoch) == 2 and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    killer = keras.callbacks.LambdaCallback(on_train_batch_end=die)
    history = model.fit(
        X, Y, validation_data=(X, Y), batch_size=16, epochs=epochs, shuffle=False, verbose=0,
        callbacks=[killer, *run.callbacks("own", saver, data=(X, Y))],
    )  # fmt: skip
    return model, history, saver


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))  # `fit` changes it
    monkeypatch.setattr(machine, "probe", lambda: {"float32": 100.0})
    monkeypatch.setattr(data, "_used", {})  # of other tests: a program of its own used none
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_killed_training_of_own_parts_goes_on(lab, home, capsys):
    program = "import pathlib, sys, types\nsys.path.insert(0, sys.argv[1])\n"
    program += "import test_lab_06 as t\nlab = types.SimpleNamespace(**t.cells.load(t.LAB))\n"
    program += "t.fit(lab, pathlib.Path(sys.argv[2]), 4, kill=True)\n"
    command = [sys.executable, "-c", program, os.path.dirname(__file__), str(home / "killed")]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    model, history, saver = fit(lab, home / "killed", 4)
    assert "goes on after epoch 2 of 4" in capsys.readouterr().out
    whole_model, whole, whole_saver = fit(lab, home / "whole", 4)
    assert saver.best == pytest.approx(whole_saver.best)
    for name, values in whole.history.items():
        np.testing.assert_allclose(history.history[name], values, atol=1e-5)
    assert lab.largest_difference(model.get_weights(), whole_model.get_weights()) < 1e-5


def test_changed_training_step_starts_afresh(lab, home, monkeypatch, capsys):
    fit(lab, home, 1)

    def train_step(self, data):
        return keras.Model.train_step(self, data)

    monkeypatch.setattr(lab.CustomModel, "train_step", train_step)
    fit(lab, home, 2)
    assert "starts afresh" in capsys.readouterr().out


# --- workers --------------------------------------------------------------------------------------


def test_loop_without_fit_goes_on_from_its_checkpoint(lab, tmp_path):
    images, targets = RNG.random((64, 32, 32, 3), "float32"), np.eye(10, dtype="float32")[[3] * 64]
    whole, parts = {}, {}
    strategy = tf.distribute.get_strategy()
    weights = lab.train_small(strategy, images, targets, tmp_path / "a", whole.__setitem__)
    for steps in (13, 20):  # the first part ends between two checkpoints
        again = lab.train_small(
            strategy, images, targets, tmp_path / "b", parts.__setitem__, steps=steps
        )
    assert list(whole) == list(range(1, 21))
    assert parts == pytest.approx(whole, abs=1e-6)
    assert lab.largest_difference(weights, again) < 1e-6


def test_workers_get_ports_of_their_own_on_the_loopback(lab):
    configs = [json.loads(config) for config in lab.cluster(2)]
    addresses = configs[0]["cluster"]["worker"]
    assert configs[1]["cluster"]["worker"] == addresses
    assert [config["task"]["index"] for config in configs] == [0, 1]
    assert len(set(addresses)) == 2
    assert all(address.startswith("127.0.0.1:") for address in addresses)


STAND_IN = """
import json, os, pathlib, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
pathlib.Path(__file__).with_name(f"{index}.pid").write_text(str(os.getpid()))
"""


@pytest.fixture
def workers(lab, tmp_path):
    """Run stand-ins for the two workers; return exit codes; afterwards none of them is left."""

    def start(code, **options):
        (tmp_path / "worker.py").write_text(STAND_IN + code, encoding="utf-8")
        return lab.run_workers(tmp_path, **options)

    yield start
    for file in tmp_path.glob("*.pid"):
        assert not psutil.pid_exists(int(file.read_text()))


def test_two_workers_end_well(workers):
    assert workers("time.sleep(0.2 * index)") == [0, 0]


def test_a_worker_that_fails_ends_the_other(workers):
    codes = workers("time.sleep(60) if index == 0 else sys.exit(3)", patience=0.5)
    assert codes[0] != 0
    assert codes[1] == 3


def test_workers_that_hang_are_ended_in_time(workers):
    assert all(workers("time.sleep(60)", seconds=2))


def test_worker_is_killed_after_its_step(workers, lab, tmp_path):
    code = "print('[11, 2.0]\\nnoise\\n[12, 1.5]', flush=True); time.sleep(60 if index else 0)"
    codes = workers(code, kill_after=12)
    assert codes[0] == 0
    assert codes[1] != 0
    assert lab.reports(tmp_path, 1) == {11: 2.0, 12: 1.5}


def test_interrupted_watch_leaves_no_worker(workers, lab, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    watch = types.SimpleNamespace(monotonic=lambda: 0.0, sleep=interrupt)
    monkeypatch.setitem(lab.run_workers.__globals__, "time", watch)
    with pytest.raises(KeyboardInterrupt):
        workers("time.sleep(60)")


# --- results --------------------------------------------------------------------------------------


def test_both_networks_reach_eighty_percent_and_agree():
    metrics = committed(LAB, "standard").get("metrics")
    if not metrics:
        pytest.skip("not measured yet in standard")
    assert min(metrics["accuracy_keras"], metrics["accuracy_custom"]) >= 0.80
    assert abs(metrics["accuracy_keras"] - metrics["accuracy_custom"]) <= 0.02
