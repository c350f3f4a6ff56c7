"""Lab 7: what its callbacks and sessions write, and what a running TensorBoard makes of it."""

import json
import urllib.request
from urllib.parse import urlencode

from labkit import results
from tools import cells, screenshots, study

import keras
import numpy as np
import pytest
import tensorflow as tf

LAB = "07_tensorboard"


@pytest.fixture(scope="module")
def lab():
    return cells.load(LAB)


@pytest.fixture(scope="module")
def sessions(lab, tmp_path_factory):
    """Return a folder with the event files of the committed study."""
    folder = tmp_path_factory.mktemp("study")
    lab["write_sessions"](results.study("07_grid"), folder)
    return folder


@pytest.fixture(scope="module")
def ask(sessions):
    """Return a function that asks a running TensorBoard."""
    with screenshots.tensorboard(sessions) as address:

        def ask(path, body=None, **query):
            data = None if body is None else json.dumps(body).encode()
            url = f"{address}data/{path}?{urlencode(query)}"
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)

        screenshots.wait(lambda: len(ask("runs")) == 1 + 2 * 72)  # it reads the files in turn
        yield ask


# --- TensorBoard on the committed study -----------------------------------------------------------


def test_tensorboard_shows_each_epoch_of_each_session(ask, lab):
    tags = ask("plugin/scalars/tags")
    assert len(tags) == 72
    assert {tuple(found) for found in tags.values()} == {("epoch_accuracy",)}
    row = results.study("07_grid")[40]
    number = lab["GRID"].index({name: row["settings"][name] for name in lab["FACTORS"]}) + 1
    run = f"run-{number:02}-seed-{row['settings']['seed']}/validation"
    points = ask("plugin/scalars/scalars", run=run, tag="epoch_accuracy")
    assert [step for _, step, _ in points] == list(range(lab["SCALE"]["epochs"]))
    assert [y for *_, y in points] == pytest.approx(row["metrics"]["val_accuracy"])


def test_tensorboard_knows_settings_and_metric(ask, lab):
    found = ask("plugin/hparams/experiment", {})
    domains = {info["name"]: info["domainDiscrete"] for info in found["hparamInfos"]}
    assert domains == {name: sorted(values) for name, values in lab["FACTORS"].items()}
    assert found["metricInfos"][0]["displayName"] == "validation accuracy"


def test_tensorboard_has_36_groups_of_two_sessions(ask):
    body = {"startIndex": 0, "sliceSize": 100, "aggregationType": "AGGREGATION_AVG"}
    statuses = ["UNKNOWN", "SUCCESS", "FAILURE", "RUNNING"]
    body["allowedStatuses"] = [f"STATUS_{status}" for status in statuses]
    groups = ask("plugin/hparams/session_groups", body)["sessionGroups"]
    assert len(groups) == 36
    assert all(len(group["sessions"]) == 2 for group in groups)
    rows = results.study("07_grid")
    for group in groups:
        twins = [r for r in rows if group["hparams"].items() <= r["settings"].items()]
        mean = np.mean([row["metrics"]["val_accuracy"][-1] for row in twins])
        assert group["metricValues"][0]["value"] == pytest.approx(mean)


def test_tensorboard_that_does_not_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "tensorboard.py").write_text("raise SystemExit('broken')")
    with pytest.raises(RuntimeError, match="broken"), screenshots.tensorboard(tmp_path):
        pass


# --- what the lab's own code writes ---------------------------------------------------------------


def test_callback_logs_a_matrix_and_recalls_each_epoch(lab, tmp_path):
    images = np.random.default_rng(0).uniform(size=(12, 4)).astype("float32")
    labels = np.eye(3, dtype="float32")[[0] * 6 + [1] * 6]  # no example of the last class
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(5)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    callback = lab["ConfusionMatrix"](str(tmp_path), batches, ["a", "b", "c"])
    model.fit(batches, epochs=3, verbose=0, callbacks=[callback])
    predicted = model.predict(batches, verbose=0).argmax(axis=1)
    assert [matrix.sum(axis=1).tolist() for matrix in callback.matrices] == [[6, 6, 0]] * 3
    assert (
        callback.matrices[-1].sum(axis=0).tolist() == np.bincount(predicted, minlength=3).tolist()
    )
    found = {(page, tag): steps for page, tag, steps in lab["logged"](tmp_path)}
    recalls = {("scalars", f"recall/{name}"): 3 for name in "abc"}
    assert found == {("images", "confusion matrix"): 3} | recalls


def test_rows_of_a_confusion_matrix_add_up_to_1_or_are_empty(lab):
    shares = lab["row_shares"](np.array([[2, 0, 0], [0, 2, 1], [0, 0, 0]]))
    np.testing.assert_allclose(shares, [[1, 0, 0], [0, 2 / 3, 1 / 3], [0, 0, 0]])


def test_confused_pairs_leave_the_diagonal_out(lab):
    pairs = lab["confused_pairs"](np.array([[0.6, 0.3, 0.1], [0, 1, 0], [0.5, 0, 0.5]]), "abc", 2)
    assert pairs == [("c", "a", 0.5), ("a", "b", 0.3)]


def test_grid_has_36_different_combinations_and_the_study_two_seeds_of_each(lab):
    grid = {tuple(settings.items()) for settings in lab["GRID"]}
    assert len(grid) == len(lab["GRID"]) == 36
    cases = study.Study("07_grid").cases
    for seed in (0, 1):
        assert [c for c in cases if c["seed"] == seed] == [s | {"seed": seed} for s in lab["GRID"]]


def test_layers_of_one_shape_start_differently(lab):
    settings = {"batch_norm": False, "initializer": "normal_0.01"}
    model = lab["make_network"](settings, share=0.25)
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    assert np.std(kernels[0]) == pytest.approx(0.01, rel=0.1)
    assert len({kernel.ravel()[0] for kernel in kernels}) == len(kernels)


# --- pictures of pages ---------------------------------------------------------------------------


def test_every_page_has_a_picture_that_a_lab_shows():
    sources = "".join(file.read_text(encoding="utf-8") for file in cells.SOURCES.glob("*.py"))
    for name in screenshots.PAGES:
        assert (screenshots.IMAGES / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"images/{name}.png" in sources
    shown = {file.stem for file in screenshots.IMAGES.glob("tensorboard_*.png")}
    assert shown == set(screenshots.PAGES)


def test_missing_logs_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    assert "python -m tools.run 02" in screenshots.take("tensorboard_scalars")
