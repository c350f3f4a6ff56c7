"""The parts that lab 10 defines: right values, float32 where it counts, safe to save and resume."""

import json
import types

import labkit
from labkit import data, machine
from labkit.results import committed
from tools import cells

import keras
import numpy as np
import pytest
import tensorflow as tf

LAB = "10_vae"
BFLOAT16 = pytest.param(
    "mixed_bfloat16",
    marks=pytest.mark.skipif(
        "mixed_bfloat16" not in machine._candidates(),
        reason="this processor does not compute in bfloat16",
    ),
)
RNG = np.random.default_rng(10)
X = RNG.random((40, 28, 28, 1), "float32")


@pytest.fixture(scope="module")
def lab():
    return types.SimpleNamespace(**cells.load(LAB))


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


# --- the loss -------------------------------------------------------------------------------------


def test_reconstruction_error_is_a_sum_over_pixels(lab):
    logits = 3 * RNG.normal(size=X.shape).astype("float32")
    each = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)(X, logits)
    expected = np.sum(each, axis=(1, 2))
    np.testing.assert_allclose(lab.reconstruction_error(X, logits), expected, rtol=1e-5)


def test_reconstruction_error_of_extreme_logits_and_its_gradient(lab):
    logits = tf.fill((1, 28, 28, 1), 200.0)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        error = lab.reconstruction_error(tf.zeros_like(logits), logits)
    assert error.numpy() == pytest.approx([784 * 200.0])
    np.testing.assert_allclose(tape.gradient(error, logits), np.ones((1, 28, 28, 1)))


def test_kl_is_zero_only_for_the_standard_normal_distribution(lab):
    mean, log_variance = np.meshgrid(np.linspace(-2, 2, 9), np.linspace(-3, 3, 9))
    kl = np.asarray(lab.kl_each(mean, log_variance))
    assert (kl == 0).sum() == 1
    assert kl[4, 4] == 0
    assert kl.min() == 0


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 1.5), (-1.2, 0.0), (0.7, -2.0)])
def test_kl_and_sampling_agree_with_an_integral(lab, mean, log_variance):
    z = np.linspace(-15, 15, 60_001)
    q = np.exp(-0.5 * (z - mean) ** 2 / np.exp(log_variance))
    q /= np.trapezoid(q, z)
    p = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    ratio = np.log(np.maximum(q, 1e-300) / np.maximum(p, 1e-300))
    assert float(lab.kl_each(mean, log_variance)) == pytest.approx(np.trapezoid(q * ratio, z), 1e-4)
    shape = (200_000, 1)
    drawn = lab.Sampling(seed=1)(tf.fill(shape, mean), tf.fill(shape, log_variance)).numpy()
    share = np.trapezoid(q[z <= 0.5], z[z <= 0.5])
    assert (drawn <= 0.5).mean() == pytest.approx(share, abs=0.005)


def test_sampling_draws_anew_each_time_and_again_from_its_seed(lab):
    inputs = tf.zeros((5, 2)), tf.zeros((5, 2))
    layer, same = lab.Sampling(seed=3), lab.Sampling.from_config(lab.Sampling(seed=3).get_config())
    first, second = layer(*inputs).numpy(), layer(*inputs).numpy()
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(same(*inputs), first)


# --- the models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float32", BFLOAT16], indirect=True)
def test_what_the_loss_is_made_of_is_float32(lab, policy):
    vae = lab.make_vae(3, (8,))
    parts = [*vae.encoder(X), vae.decoder(np.zeros((1, 3), "float32")), *vae.costs(X, X)]
    assert {part.dtype for part in parts} == {tf.float32}
    assert vae.encoder.layers[2].compute_dtype == keras.DTypePolicy(policy).compute_dtype
    assert vae(X).shape == X.shape


def fitted(lab, beta=1.0, epochs=1):
    """Return a small VAE, trained a little."""
    keras.utils.set_random_seed(1)
    vae = lab.make_vae(3, (8,), beta)
    vae.compile(keras.optimizers.Adam(0.01))
    vae.fit(X, X, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return vae


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
def test_three_losses_are_means_over_all_images(lab, beta):
    vae = fitted(lab, beta)
    state = vae.sample.generator.state.numpy()
    reported = vae.evaluate(X, X, batch_size=40, verbose=0, return_dict=True)
    assert sorted(reported) == ["kl", "loss", "reconstruction"]
    vae.sample.generator.state.assign(state)
    means = [float(np.mean(cost)) for cost in vae.costs(X, X)]
    names = ("loss", "reconstruction", "kl")
    assert [reported[name] for name in names] == pytest.approx(means, rel=1e-5)
    assert reported["loss"] == pytest.approx(reported["reconstruction"] + beta * reported["kl"])


def test_a_step_follows_the_gradient_of_the_loss(lab):
    vae = lab.make_vae(3, (8,), 2.0)
    vae.compile(keras.optimizers.SGD(1e-3))
    state, before = vae.sample.generator.state.numpy(), vae.get_weights()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(vae.costs(X, X)[0])
    gradients = tape.gradient(loss, vae.trainable_variables)
    vae.sample.generator.state.assign(state)
    vae.fit(X, X, batch_size=40, shuffle=False, verbose=0)
    for old, new, gradient in zip(before, vae.get_weights(), gradients, strict=True):
        np.testing.assert_allclose(new - old, -1e-3 * np.asarray(gradient), atol=1e-5)


def test_training_makes_the_loss_smaller(lab):
    vae = fitted(lab)
    before = vae.evaluate(X, X, verbose=0, return_dict=True)["loss"]
    vae.fit(X, X, batch_size=16, epochs=20, verbose=0)
    assert vae.evaluate(X, X, verbose=0, return_dict=True)["loss"] < before


@pytest.mark.parametrize("policy", ["float32", BFLOAT16], indirect=True)
def test_models_survive_their_files(lab, tmp_path, policy):
    vae, plain = fitted(lab, beta=0.5), lab.make_autoencoder(2, (8,))
    plain.compile("adam", lab.reconstruction_error)
    plain.save(tmp_path / "plain.keras")
    vae.save(tmp_path / "vae.keras")
    keras.config.set_dtype_policy("float32")  # the file knows the policy, the program need not
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert isinstance(loaded, lab.VAE)
    assert loaded.beta == 0.5
    assert int(loaded.optimizer.iterations) == 3
    assert loaded.encoder.layers[2].dtype_policy.name == policy
    np.testing.assert_allclose(loaded(X), vae(X), atol=1e-5)
    loaded.fit(X, X, verbose=0)
    loaded = keras.saving.load_model(tmp_path / "plain.keras", compile=False)
    np.testing.assert_allclose(loaded(X), plain(X), atol=1e-5)
    assert loaded.code(X).shape == (40, 2)


# --- the grid -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_grid_grows_to_the_right_and_upwards(lab, number):
    def decoder(codes):
        return tf.reshape(codes[:, number], (-1, 1, 1, 1)) * tf.ones((28, 28, 1))

    grid = lab.latent_grid(decoder, limit=1.5, steps=15)
    assert grid.shape == (420, 420)
    decoded = np.log(grid / (1 - grid))[14::28, 14::28]  # one pixel of each picture
    x, y = np.meshgrid(np.linspace(-1.5, 1.5, 15), np.linspace(1.5, -1.5, 15))
    np.testing.assert_allclose(decoded, (x, y)[number], atol=1e-5)


def test_ink_is_black_on_white_paper(lab):
    pictures = lab.paper(np.stack([np.zeros((28, 28, 1)), np.ones((28, 28, 1))]))
    assert [picture.shape for picture in pictures] == [(28, 28, 3)] * 2
    assert [picture.mean() for picture in pictures] == [1.0, 0.0]


# --- resuming -------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "probe", lambda: {"float32": 100.0})
    monkeypatch.setattr(data, "_used", {})
    return labkit.start("toy")


def train(lab, run, name, epochs, beta=1.0, latent_dim=2):
    """Train as the lab does; return the model, its history, and the callback with the grids."""
    keras.utils.set_random_seed(1)
    vae = lab.make_vae(latent_dim, (8,), beta)
    vae.compile("adam")
    grid = lab.DecodedGrid(run.log_dir / name / "grid")
    history = vae.fit(
        X, X, batch_size=16, epochs=epochs, shuffle=False, verbose=0, validation_data=(X, X),
        callbacks=run.callbacks(name, grid, data=X),
    )  # fmt: skip
    return vae, history.history, grid


def test_training_that_goes_on_draws_the_noise_it_would_have_drawn(lab, run, capsys):
    whole_vae, whole, whole_grid = train(lab, run, "whole", 4)
    train(lab, run, "parts", 2)
    vae, history, grid = train(lab, run, "parts", 4)
    assert "goes on after epoch 2 of 4" in capsys.readouterr().out
    for name, values in whole.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)
    for a, b in zip(vae.variables, whole_vae.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)
    assert len(grid.frames) == 4
    for a, b in zip(grid.frames, whole_grid.frames, strict=True):
        np.testing.assert_allclose(a, b, atol=1)


@pytest.mark.parametrize("change", [{"beta": 2.0}, {"latent_dim": 3}])
def test_changed_training_starts_afresh(lab, run, capsys, change, monkeypatch):
    monkeypatch.setattr(lab.DecodedGrid, "on_epoch_end", lambda self, epoch, logs=None: None)
    train(lab, run, "vae", 1)
    train(lab, run, "vae", 2, **change)
    assert "starts afresh" in capsys.readouterr().out


def test_settings_are_plain(lab):
    config = lab.make_vae(2, (8,), 3.0).get_config()
    assert json.loads(json.dumps(config))["beta"] == 3.0


# --- results --------------------------------------------------------------------------------------


def test_bounds_of_the_committed_run():
    metrics = committed(LAB, "standard")["metrics"]
    assert metrics["negative_elbo"] <= 150
    assert metrics["negative_elbo_latent_16"] <= 105
    assert metrics["inside_vae_minus_ae"] > 0
    total = metrics["reconstruction"] + metrics["kl"]
    assert metrics["negative_elbo"] == pytest.approx(total)
