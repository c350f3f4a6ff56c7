"""The benchmark measures what it says, on a tiny scale; both augmentations do the same."""

import functools
import json
import subprocess
import sys
import time

from benchmarks import __main__ as command
from benchmarks import augmentation, book, convolutions, keras_step, measure, report, tasks, waiting
from labkit.paths import ROOT
from preprocessing import BOOK_AUGMENTATION, color, flip, parse_aug_fn, rotate, zoom
from tools import readme

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

N_CARDS = 3_000
TINY = {
    "ceiling": {"steps": 1, "repeats": 1, "share": 1 / 16, "shapes": [[2, 8, 8], [4, 4, 8]]},
    "wait": {"steps": 4, "repeats": 2, "share": 1 / 16, "copies": 1},
    "recipe": {"steps": 2, "repeats": 1, "share": 1 / 16, "batch_size": 8, "copies": 1},
}


@pytest.fixture(scope="module")
def photos():
    images, _ = waiting.sample()
    return images


# ------------------------------------------------------------------ (c) the same distribution


@pytest.fixture(scope="module")
def ours(photos):
    return augmentation.facts(augmentation.batched, photos, N_CARDS)


def likeness(ours, other, photos):
    """Return the smallest p-value, corrected for the number of tests."""
    tf.random.set_seed(1)
    found = augmentation.p_values(ours, augmentation.facts(other, photos, N_CARDS))
    return min(found.values()) * len(found)


def test_batched_augmentation_has_the_distribution_of_the_books(ours, photos):
    assert likeness(ours, augmentation.one_by_one, photos) >= augmentation.SIGNIFICANT


def changed(**other):
    """Return our pipeline with other probabilities or ranges than the book's."""
    steps = [
        functools.partial(function, **other[name]) if name in other else usual
        for name, function, usual in zip(
            ("flip", "color", "rotate", "zoom"),
            (flip, color, rotate, zoom),
            BOOK_AUGMENTATION,
            strict=True,
        )
    ]
    change = functools.partial(parse_aug_fn, augment=steps)
    return functools.partial(augmentation.batched, change=change)


@pytest.mark.parametrize(
    "other",
    [
        {"flip": {"probability": 0.4}},
        {"color": {"probability": 0.6}},
        {"color": {"probability": 0.5, "hue": 0.06}},
        {"color": {"probability": 0.5, "saturation": (0.8, 1.6)}},
        {"color": {"probability": 0.5, "brightness": 0.1}},
        {"color": {"probability": 0.5, "contrast": (0.8, 1.2)}},
        {"rotate": {"probability": 0.35}},
        {"zoom": {"probability": 0.5, "scale": (0.7, 1.4)}},
    ],
    ids=str,
)
def test_another_distribution_is_noticed(other, ours, photos):
    assert likeness(ours, changed(**other), photos) < augmentation.SIGNIFICANT


def test_steps_that_share_their_randomness_are_noticed(ours, photos):
    def change(example, seed):
        images, labels = parse_aug_fn(example, seed, augment=())
        for function in BOOK_AUGMENTATION:
            images = function(images, seed)  # not fold_in(seed, step)
        return images, labels

    linked = functools.partial(augmentation.batched, change=change)
    assert likeness(ours, linked, photos) < augmentation.SIGNIFICANT


def test_the_grey_card_gives_away_what_was_done():
    card = augmentation.grey_card()[None].astype("float32") / 255
    read = augmentation.read_grey(card)
    assert [read[name][0] for name in ("turned", "resized", "recoloured")] == [0, 0, 0]
    turned = {int(augmentation.read_grey(np.rot90(card, k, (1, 2)))["turned"][0]) for k in range(4)}
    turned |= {
        int(augmentation.read_grey(np.rot90(card[:, :, ::-1], k, (1, 2)))["turned"][0])
        for k in range(4)
    }
    assert turned == set(range(8))
    assert augmentation.read_grey(card * 0.9)["recoloured"][0] == 1
    assert augmentation.read_grey(zoom(card, (1, 2), scale=(0.6, 0.6)).numpy())["area"][0] < 40
    assert augmentation.read_grey(zoom(card, (1, 2), scale=(1.4, 1.4)).numpy())["area"][0] > 90


def test_the_books_pipeline_keeps_shape_and_range(photos):
    examples = augmentation.as_examples(photos[:100], np.arange(100) % 10)
    images, labels = next(iter(book.training_batches(examples, batch_size=100, shuffle=1)))
    assert images.shape == (100, 32, 32, 3)
    assert 0 <= float(tf.reduce_min(images)) <= float(tf.reduce_max(images)) <= 1
    assert labels.numpy().argmax(axis=1).tolist() == [n % 10 for n in range(100)]


def test_speed_of_augmentation_is_measured(photos):
    found = augmentation.speed(photos, 256, repeats=2)
    assert found["value"] > 0
    assert found["ours_images_per_second"] > 0


# ------------------------------------------------------------------------------- (b) operations


def test_operations_are_counted_by_hand():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(5, 3, padding="same"),
            layers.BatchNormalization(),
            layers.Conv2D(4, 3, strides=2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    first = 2 * 9 * 2 * 5 * 36
    second = 2 * 9 * 5 * 4 * 4
    dense = 2 * 16 * 3
    assert convolutions.training_flops(model, 7) == 7 * (2 * first + 3 * second + 3 * dense)
    model.layers[0].trainable = False  # forward only; the next still needs the gradient to gamma
    assert convolutions.training_flops(model, 1) == first + 3 * second + 3 * dense
    model.layers[1].trainable = False
    assert convolutions.training_flops(model, 1) == first + 2 * second + 3 * dense


@pytest.mark.parametrize("kind", [layers.SeparableConv2D, layers.DepthwiseConv2D])
def test_layers_that_cannot_be_counted_are_refused(kind):
    sizes = {"kernel_size": 3} | ({"filters": 4} if kind is layers.SeparableConv2D else {})
    model = keras.Sequential([keras.Input((6, 6, 2)), kind(**sizes)])
    with pytest.raises(TypeError, match="is not counted yet"):
        convolutions.training_flops(model, 1)


# ---------------------------------------------------------------------- every task, very small


def test_ceiling_task():
    found = tasks.ceiling(TINY["ceiling"])
    assert found["value"] > 0
    assert found["ceiling_gflops"] == max(found["ceiling_by_shape"].values())


def test_wait_task():
    found = tasks.wait(TINY["wait"])
    assert 0 < found["value"] < 1
    assert found["cost"]["repeats"] == found["repeats"] == 2


def test_recipe_task():
    found = tasks.recipe(TINY["recipe"])
    assert found["value"] == pytest.approx(100 * found["seconds_of_an_epoch"])


def test_a_slow_pipeline_makes_training_wait():
    def slow():
        while True:
            time.sleep(0.02)
            yield np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32")

    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(loss="mse")
    epoch = waiting.Epoch(model, slow(), steps=5)
    epoch.turn()  # traces
    epoch.turn()
    assert epoch.waited[-1] > 0.5


def test_variants_differ_in_nothing_but_numerics_and_compilation():
    names = keras_step.lab()
    ours, default = (keras_step.make_trainer(names, v, 1 / 16) for v in ("ours", "default"))
    assert ours.count_params() == default.count_params()
    assert ours.jit_compile is False  # and `default` whatever Keras chooses by itself
    assert {layer.compute_dtype for layer in default.layers} == {"float32"}
    assert all(
        np.array_equal(a, b) for a, b in zip(ours.get_weights(), default.get_weights(), strict=True)
    )


def test_pytorch_trains_the_network_of_the_lab():
    torch_step = pytest.importorskip("benchmarks.torch_step", reason="no PyTorch here")
    step = torch_step.make_step("float32", False, 2, 1 / 16, n_batches=1)
    assert step.parameters == keras_step.lab()["make_cnn"](1 / 16).count_params()
    step(0)


# -------------------------------------------------------------------------- turns and workers


def test_turns_alternate_and_the_first_round_does_not_count():
    calls = []

    def turn(name):
        calls.append(name)
        return float(len(calls))

    found = measure.take_turns({n: functools.partial(turn, n) for n in "AB"}, repeats=2)
    assert "".join(calls) == "BAABBA"
    assert found == {"A": [3.0, 6.0], "B": [4.0, 5.0]}
    assert measure.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 2.0]) == {
        "value": 2.0, "low": 2.0, "high": 3.0, "repeats": 3,
    }  # fmt: skip


def test_worker_answers_and_a_failing_one_says_why(tmp_path):
    code = "from benchmarks.measure import serve; serve(lambda: 0.5, parameters=7)"
    worker = measure.Worker([sys.executable, "-c", code], tmp_path / "log")
    try:
        assert worker.about == {"parameters": 7}
        assert [worker.turn(), worker.turn()] == [0.5, 0.5]
    finally:
        worker.close()
    with pytest.raises(measure.WorkerError, match="no such thing"):
        measure.Worker([sys.executable, "-c", "raise OSError('no such thing')"], tmp_path / "log")


def test_step_ratios_take_pytorchs_best():
    seconds = {"ours": [1.0, 1.0], "default": [3.0, 3.0]}
    assert command.step_ratios(seconds)["step_against_torch"] == {"why": "no PyTorch"}
    seconds |= {"PyTorch, a": [2.0, 2.0], "PyTorch, b": [0.9, 0.9]}
    found = command.step_ratios(seconds)
    assert found["step_against_keras"]["value"] == 3.0
    assert found["step_against_torch"]["value"] == 0.9
    assert found["step_against_torch"]["best"] == "PyTorch, b"


def test_busy_machine_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(command.psutil, "getloadavg", lambda: (1.7, 1.0, 1.0))
    with pytest.raises(command.BusyError, match=r"busy: 1\.7 processors"):
        command.require_idle()
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert command.main() == 2
    assert "busy" in capsys.readouterr().err
    monkeypatch.setattr(command.psutil, "getloadavg", lambda: (0.1, 1.0, 1.0))
    assert command.require_idle() == 0.1


def test_python_without_pytorch_is_refused(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ModuleNotFoundError: No module named 'torch'")
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match=r"python has no PyTorch: .*named 'torch'"):
        command.torch_python("python")


# ------------------------------------------------------------------------------ (e) and report

MACHINE = {"processor": "P", "cores": 2}
LAB_5 = {"metrics": {"seconds_to_book_best": 300.0}, "machine": MACHINE}


@pytest.mark.parametrize(
    ("result", "limited", "why"),
    [
        ({}, False, "not been run"),
        ({"metrics": {}, "machine": MACHINE}, False, "not been run"),
        (LAB_5 | {"machine": {"processor": "Q", "cores": 2}}, False, "another machine"),
        (LAB_5, True, "all instructions"),
        (LAB_5, False, None),
    ],
)
def test_time_to_the_books_best(result, limited, why, monkeypatch):
    monkeypatch.setattr(command, "committed", lambda lab, profile: result)
    recipe = {"value": 10_000.0, "low": 9_000.0, "high": 12_000.0}
    found = command.time_to_book_best(recipe, MACHINE, limited)
    if why:
        assert why in found["why"]
        assert "value" not in found
    else:
        assert (found["value"], found["low"]) == (0.03, 0.025)


def part(policy="mixed_bfloat16", **more):
    about = {"machine": MACHINE, "policy": policy}
    about["versions"] = {"tensorflow": "2", "keras": "3"}
    number = {"value": 2.0, "low": 1.9, "high": 2.1}
    return {"machine": about, "noise": 0.01, "step_against_keras": number} | more


def test_table_says_what_was_reached_missed_and_not_measured():
    same = {"value": 2.0, "same_distribution": True}
    parts = {"default": part(augmentation=same), "AVX2": part("float32", waiting={"value": 0.01})}
    text = report.table({"parts": parts, "date": "2026-01-01"})
    rows = text.splitlines()
    assert "2.00 × (1.90 to 2.10), missed | 2.00 × (1.90 to 2.10) |" in rows[2]
    assert rows[3].endswith("| not measured | not measured |")
    assert "**2.00 ×**" in rows[5]
    assert rows[6].endswith("| not measured | **1.0 %** |")
    parts["default"]["augmentation"]["same_distribution"] = False
    assert "2.00 ×, missed" in report.table({"parts": parts, "date": "2026-01-01"})


def test_readme_shows_the_committed_results():
    text = readme.README.read_text(encoding="utf-8")
    assert report.table() in text
    assert "not measured" in report.table({})


def test_committed_results_are_whole():
    results = report.load()
    if results:
        assert list(results["parts"]) == list(report.NUMERICS)
        for found in results["parts"].values():
            assert {row.key for row in report.ROWS} <= set(found)
            assert "why" in found["time_to_book_best"] or found["time_to_book_best"]["value"] > 0
        assert json.loads(json.dumps(command.SIZES)) == results["sizes"], "measure again"


def test_benchmarks_stay_outside_the_labs():
    for file in [*ROOT.glob("labkit/*.py"), *ROOT.glob("labs/**/*.py"), ROOT / "preprocessing.py"]:
        assert "import benchmarks" not in file.read_text(encoding="utf-8")
        assert "from benchmarks" not in file.read_text(encoding="utf-8")
