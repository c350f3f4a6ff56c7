"""The parts that lab 9 defines: photos, cached features, restarts, calibration, strategies."""

import re
import types

from labkit import backbones, results
from labkit.paths import ROOT
from labkit.results import committed, number
from tools import cells

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

LAB = "09_transfer_learning"
STUDY = "09_finetuning"


@pytest.fixture(scope="module")
def lab():
    return types.SimpleNamespace(**cells.load(LAB))


@pytest.fixture
def body():
    """Return a tiny body with the layers that the lab names and normalisation after the cut."""
    return tiny_body("tiny", (32, 32, 3))


def tiny_body(name, input_shape, top=False, weights="imagenet"):
    keras.utils.set_random_seed(3)
    maps = inputs = keras.Input(input_shape)
    for name_of_layer, width, strides in [
        ("stem", 4, 2), ("stage1", 4, 2), ("stage2", 4, 2),
        ("stage5_block3_add", 6, 2), ("stage6", 8, 1), ("features", 10, 2),
    ]:  # fmt: skip
        maps = layers.Conv2D(width, 3, strides, "same", name=f"{name_of_layer}_conv")(maps)
        if name_of_layer == "features":
            maps = layers.BatchNormalization()(maps)
        maps = layers.ReLU(name=name_of_layer)(maps)
    return keras.Model(inputs, maps, name=name)


@pytest.fixture
def photos():
    return np.random.default_rng(9).random((16, 32, 32, 3), "float32")


def task_of(lab, n=16, n_classes=2, size=32):
    """Return a task whose photos are dark or bright: a network learns it in a few steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    images = (rng.integers(0, 80, (n, size, size, 3)) + 80 * labels[:, None, None, None]).astype(
        "uint8"
    )
    examples = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
    parts = ("training", "validation", "test")
    names = [f"class {c}" for c in range(n_classes)]
    return lab.Task(dict.fromkeys(parts, examples), dict.fromkeys(parts, labels), names)


# --- photos ---------------------------------------------------------------------------------------


def test_photos_of_some_classes_are_numbered_in_the_order_given(lab):
    splits = {"training": "train[:80]", "test": "test[:40]"}
    task = lab.read_photos("cifar10_sample", splits, 24, ["dog", "cat"])
    whole = lab.read_photos("cifar10_sample", splits, 24)
    assert task.classes == ["dog", "cat"]
    assert len(whole.classes) == 10
    for part, size in (("training", 80), ("test", 40)):
        assert len(whole.labels[part]) == size
        expected = [{5: 0, 3: 1}[label] for label in whole.labels[part] if label in (3, 5)]
        assert task.labels[part].tolist() == expected
        assert int(task.photos[part].cardinality()) == len(expected)
        examples = list(task.photos[part].as_numpy_iterator())
        assert [example["label"] for example in examples] == expected
        for example in examples:
            assert example["image"].shape == (24, 24, 3)
            assert example["image"].dtype == "uint8"


def test_grey_pictures_become_rgb(lab):
    task = lab.read_photos("fashion_mnist_sample", {"test": "test[:5]"}, 56, None)
    example = next(task.photos["test"].as_numpy_iterator())
    assert example["image"].shape == (56, 56, 3)
    assert_array_equal(example["image"][..., 0], example["image"][..., 2])
    assert example["image"].max() > 100


def test_own_photos_are_dealt_and_bad_files_named(lab, tmp_path, capsys):
    for name, colour in (("apples", "red"), ("pears", "yellow")):
        (tmp_path / name).mkdir()
        for i in range(10):
            PIL.Image.new("RGB", (40 + i, 30), colour).save(tmp_path / name / f"{i}.png")
    (tmp_path / "pears" / "broken.jpg").write_bytes(b"no photo")
    task = lab.read_folder(tmp_path, 32)
    said = capsys.readouterr().out
    assert said.startswith("left out: ")
    assert "broken.jpg" in said
    assert task.classes == ["apples", "pears"]
    assert {part: np.bincount(labels).tolist() for part, labels in task.labels.items()} == {
        "training": [7, 7], "validation": [1, 1], "test": [2, 2]}  # fmt: skip
    for part, examples in task.photos.items():
        for example, label in zip(examples.as_numpy_iterator(), task.labels[part], strict=True):
            assert example["label"] == label
            assert (example["image"][0, 0, 1] > 100) == (label == 1)  # only yellow has green


# --- networks -------------------------------------------------------------------------------------


def test_depths_are_the_last_layers_of_each_size(lab, body):
    assert [layer.name for layer in lab.depths(body)] == [
        "stem", "stage1", "stage2", "stage6", "features"]  # fmt: skip


def test_head_on_cached_features_is_the_network(lab, body, photos):
    network = lab.make_network(body, 3)
    features = keras.Model(body.input, network.get_layer("means").output)(photos)
    head = lab.make_head(features.shape[1], 3)
    head.set_weights(network.get_weights()[-2:])
    assert_allclose(head(features), network(photos), atol=1e-6)
    assert_allclose(np.sum(network(photos), axis=1), np.ones(16), atol=1e-5)


def test_what_is_cached_at_the_cut_gives_the_same_answer(lab):
    whole = backbones.backbone(lab.LITE, (64, 64, 3))
    cut = whole.get_layer(lab.CUT).output
    bottom, top = keras.Model(whole.input, cut), keras.Model(cut, whole.output)
    photo = np.random.default_rng(0).random((1, 64, 64, 3), "float32")
    assert_allclose(top(bottom(photo)), whole(photo), atol=1e-5)
    assert bottom.count_params() + top.count_params() == whole.count_params()


def test_frozen_normalization_keeps_its_statistics_in_training(lab, body):
    network = lab.compiled(lab.make_network(lab.freeze_normalization(body), 2))
    names = {weight.path: weight.numpy() for weight in network.weights}
    network.fit(lab.training_batches(task_of(lab)), epochs=2, verbose=0, shuffle=False)
    for weight in network.weights:
        changed = not np.array_equal(names[weight.path], weight.numpy())
        assert changed == ("batch_normalization" not in weight.path), weight.path


def test_restart_forgets_a_training(lab, body):
    network = lab.compiled(lab.make_network(body, 2))
    network.get_layer("new_dropout").rate = 0.0
    first, after = network.get_weights(), []
    batches = tf.data.Dataset.from_tensors((np.ones((8, 32, 32, 3)), np.eye(2)[[0, 1] * 4]))
    for _ in range(2):
        lab.restart(network, first)
        network.fit(
            batches,
            epochs=3,
            verbose=0,
            shuffle=False,
            callbacks=[lab.FollowRate(lambda step: 0.01)],
        )
        after.append(network.get_weights())
    for a, b in zip(*after, strict=True):
        assert_allclose(a, b, atol=1e-6)
    assert int(network.optimizer.iterations) == 3
    assert any(not np.allclose(a, start) for a, start in zip(after[0], first, strict=True))


def test_rate_follows_the_step_of_the_optimizer(lab, body):
    seen = []

    def rate(step):
        seen.append(step)
        return 0.1 / (1 + step)

    network = lab.compiled(lab.make_network(body, 2))
    batches = tf.data.Dataset.from_tensors((np.ones((4, 32, 32, 3)), np.eye(2)[[0, 1] * 2]))
    for _ in range(2):  # as after an interruption
        network.fit(batches.repeat(3), verbose=0, shuffle=False, callbacks=[lab.FollowRate(rate)])
    assert seen == [0, 1, 2, 3, 4, 5]
    assert float(network.optimizer.learning_rate) == pytest.approx(0.1 / 6)


def test_head_learns_what_can_be_separated(lab):
    task = task_of(lab, n=64)
    features = {
        part: np.repeat(np.eye(2)[labels], 128, axis=1) for part, labels in task.labels.items()
    }
    head = lab.train_head(features, task, seed=1)
    again = lab.train_head(features, task, seed=1)
    assert lab.accuracies(head(features["test"]), task.labels["test"]) == 1.0
    assert_allclose(head.get_weights()[0], again.get_weights()[0], atol=1e-6)


def test_small_network_takes_photos_of_any_size(lab):
    for size in (96, 224):
        maps = lab.make_small((size, size, 3)).output
        assert maps.shape == (None, size // 32, size // 32, 256)


# --- what is measured -----------------------------------------------------------------------------


def test_accuracies_of_one_and_of_several(lab):
    answers = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert lab.accuracies(answers, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    several = [answers, answers[:, ::-1]]
    assert lab.accuracies(several, np.array([0, 1, 1])) == pytest.approx([2 / 3, 1 / 3])


def test_calibration_error_by_hand(lab):
    answers = np.array([[0.95, 0.05], [0.95, 0.05], [0.3, 0.7], [1.0, 0.0]])
    bins = lab.reliability(answers, np.array([0, 1, 1, 0]))
    assert bins["share"].tolist() == [0.25, 0.75]
    assert_allclose(bins["accuracy"], [1, 2 / 3])
    assert lab.calibration_error(bins) == pytest.approx(0.25 * 0.3 + 0.75 * (2.9 / 3 - 2 / 3))


def test_always_right_and_always_sure_is_calibrated(lab):
    bins = lab.reliability(np.eye(3), np.arange(3))
    assert lab.calibration_error(bins) == 0


@pytest.mark.parametrize("private", [True, False])
def test_worst_mistakes_come_first(lab, monkeypatch, private):
    shown = {}

    def keep(pictures, titles, caption, **options):
        shown.update(pictures=pictures, titles=titles, **options)

    monkeypatch.setattr(lab.figures, "images", keep)
    task = task_of(lab, n=4)
    answers = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    lab.show_worst(task, answers, "", n=2, private=private)
    assert shown["titles"] == ["class 0 0.90, is class 1", "class 1 0.80, is class 0"]
    assert shown["private"] == private
    photos = [example["image"] for example in task.photos["test"].as_numpy_iterator()]
    assert_array_equal(shown["pictures"], [photos[1], photos[2]])


# --- strategies -----------------------------------------------------------------------------------


def test_rows_are_as_many_of_each_class(lab):
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    rows = lab.choose_rows(labels, 3, seed=1)
    assert len(set(rows)) == 6
    assert labels[rows].tolist() == [0, 0, 0, 1, 1, 1]
    assert_array_equal(rows, lab.choose_rows(labels, 3, seed=1))
    assert not np.array_equal(rows, lab.choose_rows(labels, 3, seed=2))


def test_head_of_a_logistic_regression_fits_the_network(lab):
    rng, labels = np.random.default_rng(4), np.arange(40) % 2
    features = rng.normal(5, 3, (40, 6)) + 4 * labels[:, None] * [1, 0, -1, 0, 0, 0]
    features[:, 5] = 2.0  # a map that is always the same
    kernel, bias = lab.fit_head(features, labels)
    head = lab.make_head(6, 2)
    head.set_weights([kernel, bias])
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.maximum(spread, spread.mean() / 3)
    model = lab.LogisticRegression(C=0.01, max_iter=1000).fit(scaled, labels)
    assert_allclose(head(features), model.predict_proba(scaled), atol=1e-5)
    assert lab.accuracies(head(features), labels) > 0.7


def test_too_few_examples_are_refused(lab):
    with pytest.raises(ValueError, match="only 2 examples, 3 are wanted"):
        lab.choose_rows(np.array([0, 0, 0, 1, 1]), 3, seed=0)


def test_every_strategy_is_measured(lab, monkeypatch):
    monkeypatch.setattr(backbones, "backbone", tiny_body)
    cached = (lab.frozen_body, lab.extractor_for, lab.frozen_parts, lab.tunable, lab.networks)
    for function in cached:
        function.cache_clear()
    monkeypatch.setitem(lab.compare_strategies.__globals__, "STEPS", 3)
    try:
        task = task_of(lab, n=12, size=64)
        kinds = lab.learn_from(task)
        assert {kind: parts["test"].shape[1:] for kind, parts in kinds.items()} == {
            "photos": (64, 64, 3), "maps": (4, 4, 6), "early": (4,), "middle": (8,), "last": (10,)
        }  # fmt: skip
        fresh = lab.make_network(lab.make_small((64, 64, 3)), 2).get_weights()
        found = lab.compare_strategies(kinds, task.labels, n=4, seed=0, fresh=fresh)
    finally:
        for function in cached:
            function.cache_clear()
    heads = [f"frozen, {depth}" for depth in lab.HEADS]
    assert list(found) == ["from scratch", *heads, "partly unfrozen", "fine-tuned"]
    assert all(0 <= accuracy <= 1 for accuracy in found.values())


# --- the study, and what was found ----------------------------------------------------------------


def test_study_uses_only_what_the_lab_defines(lab):
    text = (ROOT / "labs" / "studies" / f"{STUDY}.py").read_text(encoding="utf-8")
    used = set(re.findall(r'definitions\["(\w+)"\]', text))
    assert used
    assert used <= set(vars(lab))


def test_bars_of_the_standard_run():
    metrics = committed(LAB, "standard")["metrics"]
    assert number(metrics["accuracy_finetuned"]) >= 0.985
    assert number(metrics["flowers_accuracy_frozen"]) >= 0.90
    assert number(metrics["flowers_accuracy_finetuned"]) >= 0.93
    assert number(metrics["accuracy_frozen"]) > number(metrics["accuracy_scratch"])


def test_bars_of_the_study():
    rows = results.study(STUDY)
    tuned = {"cats_vs_dogs": [], "flowers": []}
    for row in rows:
        if row["settings"]["start"] == "ImageNet":
            tuned[row["settings"]["photos"]].append(row["metrics"]["accuracy"])
    assert len(rows) == 7
    assert np.mean(tuned["cats_vs_dogs"]) >= 0.985
    assert np.mean(tuned["flowers"]) >= 0.93
