"""What lab 11 defines: the penalty, the two steps, resuming, the measures; and what it reached."""

import json
import os
import signal
import subprocess
import sys
import types

from labkit import data, machine, results
from labkit.results import committed
from tools import cells

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy import linalg

LAB = "11_gan"
BFLOAT16 = "mixed_bfloat16" in machine._candidates()
RNG = np.random.default_rng(11)
IMAGES = RNG.integers(0, 256, (62, 8, 8, 1), np.uint8)  # three steps of 5 × 4, two left over


@pytest.fixture(scope="module")
def lab():
    return types.SimpleNamespace(**cells.load(LAB))


# --- penalty --------------------------------------------------------------------------------------


def test_slope_of_a_known_function(lab):
    points = RNG.normal(size=(7, 2, 3)).astype("float32")
    slopes = lab.slope(lambda x: tf.reduce_sum(x**2, axis=[1, 2]), points)
    np.testing.assert_allclose(slopes, 2 * np.linalg.norm(points.reshape(7, 6), axis=1), rtol=1e-5)


def linear_critic(length, dtype="float32"):
    """Return a linear critic of images (4, 4, 1) whose slope is `length` everywhere."""
    critic = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(dtype=dtype), layers.Dense(1, dtype=dtype)]
    )
    weights = RNG.normal(size=(16, 1))
    critic.set_weights([length * weights / np.linalg.norm(weights), np.ones(1)])
    return critic


@pytest.mark.parametrize(("length", "expected"), [(1.0, 0.0), (2.0, 1.0), (0.0, 1.0), (0.5, 0.25)])
def test_penalty_of_a_linear_critic(lab, length, expected):
    pair = [RNG.normal(size=(6, 4, 4, 1)).astype("float32") for _ in range(2)]
    share = RNG.random(6).astype("float32")
    penalty = lab.gradient_penalty(linear_critic(length), *pair, share)
    assert float(penalty) == pytest.approx(expected, abs=1e-5)


def test_penalty_looks_between_the_right_pairs(lab):
    """The critic's slope is |x|, so the penalty tells at which points it was taken."""
    real, fake = np.array([[4.0], [9.0]], "float32"), np.array([[2.0], [1.0]], "float32")
    share = np.array([0.5, 1.0], "float32")  # of real: 3 and 9
    penalty = lab.gradient_penalty(lambda x: x**2 / 2, real, fake, share)
    assert float(penalty) == pytest.approx(((3 - 1) ** 2 + (9 - 1) ** 2) / 2, rel=1e-5)


@pytest.mark.skipif(not BFLOAT16, reason="this processor does not compute in bfloat16")
def test_penalty_of_short_numbers_is_float32(lab):
    pair = [RNG.normal(size=(6, 4, 4, 1)).astype("float32") for _ in range(2)]
    penalty = lab.gradient_penalty(
        linear_critic(2.0, "mixed_bfloat16"), *pair, np.ones(6, "float32")
    )
    assert penalty.dtype == tf.float32
    assert float(penalty) == pytest.approx(1.0, abs=0.05)


def test_penalty_teaches_the_same_as_with_the_leaky_layer_of_keras(lab):
    pair, learned = RNG.normal(size=(2, 6, 8, 8, 1)).astype("float32"), []
    for leaky in (lab.Leaky, layers.LeakyReLU):
        keras.utils.set_random_seed(1)
        critic = keras.Sequential([
            keras.Input((8, 8, 1)), layers.Conv2D(4, 3), leaky(), layers.Conv2D(4, 3), leaky(),
            layers.Flatten(), layers.Dense(1),
        ])  # fmt: skip
        with tf.GradientTape() as tape:
            penalty = lab.gradient_penalty(critic, *pair, np.linspace(0, 1, 6, dtype="float32"))
        kernels = [layer.kernel for layer in critic.layers if hasattr(layer, "kernel")]
        learned.append([critic(pair[0]), *tape.gradient(penalty, kernels)])
    for one, two in zip(*learned, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


# --- points ---------------------------------------------------------------------------------------


def test_wasserstein_distance_of_moved_points(lab):
    points = RNG.normal(size=(40, 2))
    assert lab.wasserstein(points, points[::-1]) == pytest.approx(0)
    assert lab.wasserstein(points, np.add(points[::-1], [3, 4])) == pytest.approx(5)


def test_places_are_served_or_not(lab):
    assert lab.places_served(lab.ring(seed=5)) == 8
    assert lab.places_served(np.repeat(lab.CENTRES[:3], 10, axis=0)) == 3
    assert lab.places_served(np.zeros((50, 2))) == 0
    few = np.concatenate([np.repeat(lab.CENTRES[:1], 99, axis=0), lab.CENTRES[1:2]])
    assert lab.places_served(few) == 1  # one point in a hundred is not enough


def test_weights_are_cut_off_in_every_step(lab):
    keras.utils.set_random_seed(0)
    critic, optimizer = lab.with_adam(lab.make_mlp(2, 1, limit=0.1), 0.02)
    clouds = lab.cloud((-1, 0), 0.1), lab.cloud((1, 0), 0.1)
    slopes = lab.train_critic(
        critic, optimizer, lab.wasserstein_loss, *clouds, steps=5,
        signals=(tf.identity, tf.negative), clip=0.05,
    )  # fmt: skip
    assert slopes.shape == (5, 2)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=1e-5)
    assert int(optimizer.iterations) == 5
    assert max(np.abs(weights).max() for weights in critic.get_weights()) <= 0.05 + 1e-7


def test_a_game_goes_on_where_it_stopped(lab):
    ends = []
    for parts in ([(0, 6)], [(0, 2), (2, 4)]):
        keras.utils.set_random_seed(0)
        players = lab.with_adam(lab.make_mlp(8, 2), 1e-3), lab.with_adam(lab.make_mlp(2, 1), 1e-3)
        losses = (lab.penalised_loss, tf.negative)
        for first, rounds in parts:
            lab.play(
                *players,
                losses,
                tf.constant((2, 1)),
                lab.ring(),
                tf.constant(first),
                tf.constant(rounds),
            )
        assert [int(optimizer.iterations) for _, optimizer in players] == [6, 12]
        ends.append(players[0][0].get_weights())
    for one, two in zip(*ends, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


# --- networks and steps ---------------------------------------------------------------------------


def test_networks_are_those_of_the_book(lab):
    generator, critic = lab.make_generator(), lab.make_critic()
    assert generator.count_params() == 3_808_000
    assert sum(np.prod(w.shape) for w in generator.non_trainable_variables) == 1_920
    assert critic.count_params() == 2_763_841 + 128 + 256 + 512  # and biases for the inner layers
    assert generator.output_shape == (None, 64, 64, 3)
    assert critic.output_shape == (None, 1)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in critic.layers)
    slopes = {layer.negative_slope for layer in critic.layers if hasattr(layer, "negative_slope")}
    assert sorted(slopes) == pytest.approx([0.3])


@pytest.mark.parametrize("policy", ["float32", *["mixed_bfloat16"] * BFLOAT16])
def test_a_step_moves_its_own_network_only(lab, monkeypatch, policy):
    monkeypatch.setattr(lab.run, "fast_policy", policy)
    wgan = lab.make_wgan(IMAGES, width=4, learning_rate=1e-2)
    images = tf.constant(IMAGES[:4], tf.float32) / 127.5 - 1
    assert wgan.generator(np.zeros((1, 128), "float32")).dtype == tf.float32
    assert wgan.critic(images).dtype == tf.float32
    for step, moving in [
        (lambda: wgan.critic_step(images), 1),
        (lambda: wgan.generator_step(4), 0),
    ]:
        networks = (wgan.generator, wgan.critic)
        before = [[w.numpy() for w in network.trainable_variables] for network in networks]
        values = [float(value) for value in tf.nest.flatten(step())]
        assert np.isfinite(values).all()
        for i, (network, weights) in enumerate(zip(networks, before, strict=True)):
            same = [
                np.array_equal(a, b)
                for a, b in zip(weights, network.trainable_variables, strict=True)
            ]
            assert all(same) == (i != moving)


def test_five_critic_steps_to_one_of_the_generator(lab, monkeypatch):
    monkeypatch.setattr(lab.run, "fast_policy", "float32")
    wgan = lab.make_wgan(IMAGES, width=4, learning_rate=1e-3)
    logs = wgan.train_step(tf.constant(IMAGES[:20].reshape(5, 4, 8, 8, 1)))
    assert set(logs) == {"critic_loss", "gradient_penalty", "generator_loss"}
    assert (int(wgan.critic_optimizer.iterations), int(wgan.optimizer.iterations)) == (5, 1)
    penalty, count = wgan.trackers[1], wgan.trackers[1].count
    assert float(count) == 5
    assert float(penalty.result()) > 0


def test_average_follows_the_generator(lab, monkeypatch):
    monkeypatch.setattr(lab.run, "fast_policy", "float32")
    wgan = lab.make_wgan(IMAGES, width=4, learning_rate=1e-3)
    expected = [variable.numpy().copy() for variable in wgan.average.variables]
    batches = tf.constant(IMAGES[:20].reshape(5, 4, 8, 8, 1))
    for step in (1, 2, 3):
        wgan.train_step(batches)
        share = 9 / (10 + step)
        for mean, now in zip(expected, wgan.generator.variables, strict=True):
            mean += share * (np.asarray(now) - mean)
    for mean, found in zip(expected, wgan.average.variables, strict=True):
        np.testing.assert_allclose(found, mean, atol=1e-5)
    wgan.optimizer.iterations.assign(10_000)
    before = [variable.numpy().copy() for variable in wgan.average.variables]
    wgan.follow()
    for mean, now, found in zip(
        before, wgan.generator.variables, wgan.average.variables, strict=True
    ):
        np.testing.assert_allclose(found, mean + 0.005 * (np.asarray(now) - mean), atol=1e-6)


def test_operations_are_counted_by_hand(lab):
    generator, critic = lab.make_generator(8, 1, 4), lab.make_critic(8, 1, 4)
    g1, g2 = 2 * 16 * 128 * 4, 2 * 16 * 4 * 1 * 16
    c1, c2 = 2 * 16 * 1 * 4 * 16, 2 * 16 * 4
    assert lab.operations(generator) == [g1, g2]
    assert lab.operations(critic) == [c1, c2]
    g, c = g1 + g2, c1 + c2
    by_hand = 5 * (g + 10 * c - 2 * c1) + 3 * g - g1 + 2 * c
    assert lab.step_operations(generator, critic, batch_size=2) == 2 * by_hand


# --- images ---------------------------------------------------------------------------------------


def test_bytes_and_tiles(lab):
    assert lab.to_bytes([-1.0, 0.0, 1.0]).tolist() == [0, 128, 255]
    images = np.arange(6, dtype="uint8").reshape(6, 1, 1, 1) * np.ones((6, 2, 3, 1), "uint8")
    tiled = lab.tile(images, columns=3)
    assert tiled.shape == (4, 9, 3)
    assert tiled[::2, ::3, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_arc_keeps_its_length(lab):
    a, b = (vector / np.linalg.norm(vector) for vector in RNG.normal(size=(2, 128)))
    points = lab.arc(a, b, np.linspace(0, 1, 5))
    np.testing.assert_allclose(points[[0, -1]], [a, b], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0])


# --- measures -------------------------------------------------------------------------------------


def test_frechet_distance_against_the_root_of_the_product(lab):
    a, b = (RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 5)) + RNG.normal(size=5) for _ in "ab")
    covariances = [np.cov(values, rowvar=False) + 0.1 * np.eye(5) for values in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sum(covariances) - 2 * root)
    assert lab.frechet(a, [b, a], ridge=0.1) == pytest.approx([expected, 0], abs=1e-6)
    assert lab.frechet(b, [a], ridge=0.1) == pytest.approx([expected], rel=1e-6)


def test_frechet_distance_of_fewer_images_than_features(lab):
    a, b = RNG.normal(size=(2, 10, 30))
    same, other = lab.frechet(a, [a, b], ridge=1e-3)
    assert same == pytest.approx(0, abs=1e-6)
    assert other > 1


def test_nearest_finds_copies(lab):
    known = lab.pixels(IMAGES)
    distances, places = lab.nearest(known[5:9], known)
    np.testing.assert_allclose(distances, 0, atol=1e-3)
    assert places.tolist() == [5, 6, 7, 8]
    white, black = (np.full((1, 8, 8, 1), value, np.uint8) for value in (255, 0))
    assert lab.nearest(lab.pixels(white), lab.pixels(black))[0] == pytest.approx(1, abs=1e-5)


def test_features_are_those_of_the_bundled_network(lab):
    network = lab.make_features()
    grey = lab.features(network, IMAGES[:3])
    assert grey.shape == (3, 1280)
    assert grey.dtype == np.float32
    colour = lab.features(network, np.repeat(IMAGES[:3], 3, axis=-1))
    np.testing.assert_allclose(grey, colour, atol=1e-5)


# --- resuming -------------------------------------------------------------------------------------


def train(lab, home, epochs, kill=False):
    """Train a toy as the lab does, in float32; return all that a training changes, as arrays."""
    os.environ["LABS_HOME"] = str(home)
    lab.run.fast_policy = "float32"

    def die(batch, logs):
        if kill and len(lab.run._trainings[-1].epoch) == 2 and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def callbacks(name, *more, data):
        killer = keras.callbacks.LambdaCallback(on_train_batch_end=die)
        return [killer, *type(lab.run).callbacks(lab.run, name, *more, data=data)]

    lab.run.callbacks = callbacks
    wgan, history, grids = lab.train_wgan(
        "toy", IMAGES, epochs, every=2, width=4, learning_rate=1e-3, batch_size=4
    )
    optimizers = [*wgan.optimizer.variables, *wgan.critic_optimizer.variables]
    variables = {
        f"{place} {variable.path}": np.asarray(variable, "float64")
        for place, variable in enumerate([*wgan.variables, *optimizers])
    }
    losses = {name: np.array(values) for name, values in history.history.items()}
    return variables | losses | {"grids": np.array(grids, "float64")}


PROGRAM = """
import json, pathlib, sys, types
sys.path.insert(0, sys.argv[1])
import numpy as np, tensorflow as tf
tf.config.experimental.enable_op_determinism()
import test_lab_11 as t
lab, home = types.SimpleNamespace(**t.cells.load(t.LAB)), pathlib.Path(sys.argv[2])
if sys.argv[3] == "kill":
    t.train(lab, home / "killed", 4, kill=True)
resumed, whole = (t.train(lab, home / name, 4) for name in ("killed", "whole"))
names = dict(zip(resumed, whole))  # names of variables count on
print(json.dumps([{a: float(np.abs(resumed[a] - whole[b]).max()) for a, b in names.items()},
                  {b: whole[b].shape for b in whole}]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_resumed_training_equals_an_uninterrupted_one(tmp_path):
    def start(what):
        command = [sys.executable, "-c", PROGRAM, os.path.dirname(__file__), str(tmp_path), what]
        return subprocess.run(command, capture_output=True, text=True)

    assert start("kill").returncode == -signal.SIGKILL
    done = start("resume")
    assert done.returncode == 0, done.stderr
    assert "goes on after epoch 2 of 4" in done.stdout
    differences, shapes = json.loads(done.stdout.strip().splitlines()[-1])
    assert max(differences.values()) <= 1e-6, differences
    assert shapes["grids"][0] == 1 + 12 // 2
    assert shapes["critic_loss"] == [4]
    assert sum("seed" in name for name in shapes) == 1
    assert sum("iteration" in name for name in shapes) == 2


@pytest.fixture
def home(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))  # `train` changes it
    monkeypatch.setattr(data, "_used", {})
    yield tmp_path
    vars(lab.run).pop("callbacks", None)


def test_same_training_goes_on(lab, home, capsys):
    train(lab, home, 1)
    train(lab, home, 2)
    assert "goes on after epoch 1 of 2" in capsys.readouterr().out


def test_changed_step_starts_afresh(lab, home, monkeypatch, capsys):
    train(lab, home, 1)
    monkeypatch.setattr(lab.WGAN, "critic_step", tf.function(lambda self, real: (0.0, 0.0)))
    train(lab, home, 2)
    assert "starts afresh" in capsys.readouterr().out


def test_changed_step_of_a_base_class_starts_afresh(lab, home, monkeypatch, capsys):
    train(lab, home, 1)
    train_step = lab.Game.train_step
    monkeypatch.setattr(lab.Game, "train_step", lambda self, batches: train_step(self, batches))
    train(lab, home, 2)
    assert "starts afresh" in capsys.readouterr().out


def test_changed_rate_of_the_critic_starts_afresh(lab, home, monkeypatch, capsys):
    def make_slower(*arguments):
        wgan = lab.make_wgan(*arguments)
        wgan.critic_optimizer.learning_rate = 1e-5
        return wgan

    train(lab, home, 1)
    monkeypatch.setitem(lab.train_wgan.__globals__, "make_wgan", make_slower)
    train(lab, home, 2)
    assert "starts afresh" in capsys.readouterr().out


# --- results --------------------------------------------------------------------------------------


def test_nine_tenths_of_the_way_to_real_images():
    metrics = committed(LAB, "standard")["metrics"]
    real, untrained, reached = (metrics[f"frechet{end}"] for end in ("_real", "_untrained", ""))
    assert reached - real <= (untrained - real) / 10


def test_generated_faces_are_there_and_are_no_copies(lab):
    (row,) = results.study("11_faces")
    faces = row["metrics"]
    assert row["seconds"] <= 120 * 60
    assert lab.decoded(faces["grid"]).shape == (640, 640, 3)
    assert lab.decoded(faces["strip"]).shape == (64 * len(faces["strip_steps"]), 640, 3)
    for space in ("pixels", "features"):
        nearest = faces[f"nearest_{space}"]
        assert [len(ways) for ways in nearest.values()] == [1000] * 3
        assert np.quantile(nearest["generated"], 0.01) > np.median(nearest["copies, shifted"])
