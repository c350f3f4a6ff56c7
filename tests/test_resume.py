"""Training that is killed goes on from its last epoch; changed training starts afresh."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import labkit
from labkit import machine

import keras
import numpy as np
import pytest
import tensorflow as tf

X = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [0.5]], "float32")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "probe", lambda: {"float32": 100.0})
    return labkit.start("toy")


def fit(
    run, epochs, width=4, learning_rate=0.01, data=(X, Y), name="net", batch_size=16, loss="mse"
):
    """Train a toy network; return its history and the callback that keeps the best weights."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(width), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(learning_rate), loss)
    best = keras.callbacks.EarlyStopping("val_loss", patience=99, restore_best_weights=True)
    history = model.fit(
        *data, validation_data=data, epochs=epochs, batch_size=batch_size, shuffle=False, verbose=0,
        callbacks=run.callbacks(name, best, data=data),
    )  # fmt: skip
    return history, best


def test_resumed_training_equals_an_uninterrupted_one(run):
    whole, whole_best = fit(run, 6, name="whole")
    fit(run, 3)
    rest, rest_best = fit(run, 6)
    assert rest.epoch == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(rest.history["loss"], whole.history["loss"], rtol=1e-6)
    for a, b in zip(whole.model.get_weights(), rest.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert rest_best.best == pytest.approx(whole_best.best)
    assert rest_best.best_epoch == whole_best.best_epoch


def test_best_weights_of_an_interrupted_training_survive(run):
    _, best = fit(run, 3)
    best_before = best.best
    history, best = fit(run, 3)  # nothing is left to do: only the best weights come back
    assert len(history.epoch) == 3
    assert best.best == pytest.approx(best_before)
    assert history.model.evaluate(X, Y, verbose=0) == pytest.approx(best_before, rel=1e-4)


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 32}, {"width": 5}, {"learning_rate": 0.02}, {"data": (X[:32], Y[:32])}],
)
def test_changed_training_starts_afresh_and_says_so(run, capsys, change):
    fit(run, 3)
    history, _ = fit(run, 2, **change)
    assert history.epoch == [0, 1]
    assert "starts afresh" in capsys.readouterr().out


def test_changed_body_of_a_loss_starts_afresh(run, capsys):
    def loss(y, prediction):
        return keras.ops.mean(keras.ops.abs(y - prediction))

    def other(y, prediction):
        return keras.ops.mean(keras.ops.square(y - prediction))

    other.__name__ = "loss"
    fit(run, 2, loss=loss)
    fit(run, 3, loss=loss)
    assert "goes on" in capsys.readouterr().out
    history, _ = fit(run, 3, loss=other)
    assert history.epoch == [0, 1, 2]
    assert "starts afresh" in capsys.readouterr().out


def test_fewer_epochs_start_afresh(run):
    fit(run, 3)
    assert fit(run, 2)[0].epoch == [0, 1]


class Counting(keras.layers.Layer):
    """Hands its input on, and counts how often Python calls it."""

    calls = 0

    def call(self, x):
        Counting.calls += 1
        return x


@pytest.mark.parametrize("classes", [3, 1])
@pytest.mark.parametrize("also", [(), ("code",)])
def test_a_step_is_prepared_only_once(run, also, classes):
    """TensorFlow traces a step again that made variables, which takes long for deep networks."""
    targets = np.arange(64) % 2 if classes == 1 else np.eye(3)[np.arange(64) % 3]
    batches = tf.data.Dataset.from_tensor_slices((X, targets.astype("float32"))).batch(16)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(classes), Counting()])
    loss = "categorical_crossentropy" if classes > 1 else "binary_crossentropy"
    model.compile("adam", loss, metrics=["accuracy", "mse"])
    Counting.calls = 0
    data = [batches, *also] if also else batches
    history = model.fit(batches, epochs=2, verbose=0, callbacks=run.callbacks("net", data=data))
    assert Counting.calls == 1
    assert set(history.history) == {"loss", "accuracy", "mse"}


def test_targets_of_unknown_shape_are_left_to_the_first_step(run):
    def examples():
        yield from ((X[i : i + 16], Y[i : i + 16]) for i in range(0, 64, 16))

    unknown = tf.data.Dataset.from_generator(examples, (tf.float32, tf.float32))
    known = unknown.map(lambda x, y: (tf.ensure_shape(x, (16, 3)), tf.ensure_shape(y, (16, 1))))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    history = model.fit(known, verbose=0, callbacks=run.callbacks("net", data=unknown))
    assert set(history.history) == {"loss", "mae"}


def test_damaged_file_starts_afresh(run, tmp_path, capsys):
    fit(run, 2)
    file = next((tmp_path / "trainings").rglob("*.npz"))
    file.write_bytes(file.read_bytes()[:100])
    assert fit(run, 2)[0].epoch == [0, 1]
    assert "damaged" in capsys.readouterr().out


def test_same_model_can_be_fitted_again_without_resuming(run):
    history, _ = fit(run, 2)
    fit(run, 2)
    again = history.model.fit(X, Y, epochs=3, verbose=0)
    assert len(again.epoch) == 3


def test_early_stopped_training_stays_stopped(run):
    def stop_at_once(run):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.0), "mse")
        stop = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=1e9)
        return model.fit(X, Y, epochs=9, verbose=0, callbacks=run.callbacks("stop", stop)).epoch

    first = stop_at_once(run)
    assert len(first) < 9
    assert stop_at_once(run) == first


def test_data_must_be_something_that_can_be_compared(run):
    with pytest.raises(TypeError, match="arrays, texts or data sets"):
        run.callbacks("net", data=np.array(["a", object()], dtype=object))


def test_other_seed_starts_afresh(run, capsys):
    fit(run, 2)
    run.seed = 7
    history, _ = fit(run, 3)
    assert history.epoch == [0, 1, 2]
    assert "starts afresh" in capsys.readouterr().out


def test_resume_says_where_it_goes_on_and_forget_forgets(run, capsys):
    fit(run, 2)
    fit(run, 3)
    assert "goes on after epoch 2 of 3" in capsys.readouterr().out
    run.forget("net")
    fit(run, 1)
    assert "goes on" not in capsys.readouterr().out


def test_seconds_of_all_parts_are_counted(run):
    first, _ = fit(run, 2)
    second, _ = fit(run, 3)
    assert second.seconds > first.seconds
    assert second.resumed_seconds == 0  # they were spent in this process


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import keras, labkit, test_resume
run = labkit.start("toy")
class Kill(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if {kill} and len(run._trainings[0].epoch) == 2 and batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
callbacks = run.callbacks
run.callbacks = lambda name, *more, data: [Kill(), *callbacks(name, *more, data=data)]
history, _ = test_resume.fit(run, 4)
assert {kill} or history.resumed_seconds > 0
print(history.epoch, len(history.history["loss"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_kill_9_in_the_middle_of_an_epoch(tmp_path):
    def start(kill):
        code = textwrap.dedent(SCRIPT).format(tests=os.path.dirname(__file__), kill=kill)
        env = {**os.environ, "LABS_HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    code, _ = start(kill=True)
    assert code == -signal.SIGKILL
    code, text = start(kill=False)
    assert code == 0, text
    assert "goes on after epoch 2 of 4" in text
    assert "[0, 1, 2, 3] 4" in text


def test_state_file_is_whole_or_absent(run, tmp_path, monkeypatch):
    fit(run, 2)
    file = next((tmp_path / "trainings").rglob("*.npz"))
    before = file.read_bytes()

    def full(*_args, **_arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labkit.resume.np.savez", full)
    with pytest.raises(OSError, match="No space left"):
        fit(run, 3)
    assert file.read_bytes() == before
    assert json.loads(str(np.load(file)["state"]))["epochs"] == [0, 1]
