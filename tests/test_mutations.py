"""The checks bite: whatever is changed behind their back turns one of them red."""

import json
import shutil
import subprocess
import sys

from labkit import results
from labkit.paths import ROOT
from labkit.results import PROFILES, bars, committed, misses
from tools import bars as bars_tool
from tools import build, cells, readme, study

import nbformat
import pytest

LAB = "02_house_prices"


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Work on copies of sources, notebooks and `preprocessing.py`."""
    shutil.copytree(cells.LABS, tmp_path / "labs")
    shutil.copy(ROOT / "preprocessing.py", tmp_path)
    monkeypatch.setattr(cells, "LABS", tmp_path / "labs")
    monkeypatch.setattr(cells, "SOURCES", tmp_path / "labs" / "source")
    monkeypatch.setattr(cells, "PREPROCESSING", tmp_path / "preprocessing.py")
    assert build.problems(LAB) == []
    return tmp_path


def change(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (f"labs/source/{LAB}.py", "batch_size=64", "batch_size=32", "code_sha256"),
        (
            f"labs/source/{LAB}.py",
            "quick=10, standard=300",
            "quick=10, standard=200",
            "code_sha256",
        ),
        ("preprocessing.py", "default_rng(seed)", "default_rng(seed + 1)", "preprocessing_sha256"),
        (f"labs/source/{LAB}.py", "After this lab you can", "You can", "prose changed"),
        (f"labs/source/{LAB}.py", "100 * np.mean(np.abs(", "100 * np.max(np.abs(", "solution"),
        (f"labs/{LAB}.ipynb", "After this lab you can", "You can", "prose changed"),
        (f"labs/solutions/{LAB}.ipynb", "100 * np.mean(np.abs(", "100 * np.max((", "solution"),
    ],
)
def test_changed_file_is_noticed(copies, file, old, new, complaint):
    change(copies / file, old, new)
    assert complaint in " ".join(build.problems(LAB))


def test_changed_prose_does_not_need_a_render(copies):
    change(copies / f"labs/source/{LAB}.py", "After this lab you can", "You can")
    build.write(LAB)
    assert build.problems(LAB) == []
    assert any(cell.outputs for cell in cells.code(build.load_stored(LAB)))


def test_a_value_of_another_profile_does_not_need_a_render(copies):
    before = {profile: build.source_sha256(LAB, profile) for profile in PROFILES}
    change(copies / f"labs/source/{LAB}.py", "quick=10, standard=300", "quick=9, standard=300")
    changed = [
        profile for profile in PROFILES if build.source_sha256(LAB, profile) != before[profile]
    ]
    assert changed == ["quick"]  # so the result of `quick` must be measured again
    build.write(LAB)
    assert build.problems(LAB) == []
    assert "quick=9, standard=300" in (copies / f"labs/{LAB}.ipynb").read_text(encoding="utf-8")


def test_comments_and_docstrings_do_not_age_outputs(copies):
    change(copies / f"labs/source/{LAB}.py", "  # two inputs", "  # the inputs")
    change(copies / "preprocessing.py", "Deal the rows of a table", "Deal rows")
    assert "sha256" not in " ".join(build.problems(LAB))


def test_changed_data_is_noticed(copies):
    file = copies / "labs" / f"{LAB}.ipynb"
    stored = nbformat.read(file, as_version=4)
    name = next(iter(stored.metadata.course.data))
    stored.metadata.course.data[name] = "0" * 64
    nbformat.write(stored, file)
    assert name in " ".join(build.problems(LAB))


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("labs/source/07_tensorboard.py", "layers.MaxPooling2D()", "layers.AvgPool2D()", "code"),
        ("labs/source/07_tensorboard.py", '"images": 5000', '"images": 6000', "code"),
        ("preprocessing.py", "tf.reverse(batch, axis=[2])", "batch", "code"),
        ("labs/studies/07_grid.py", 'scale["epochs"]', '2 * scale["epochs"]', "code"),
        ("labs/studies/07_grid.py", "in (0, 1)", "in (0, 1, 2)", "missing"),
        ("labs/studies/07_grid.py", "in (0, 1)", "in (0,)", "no longer in CASES"),
        ("labs/results/studies/07_grid.json", '"cifar10/data_batch_1.bin": "', "0", "data"),
    ],
)
def test_old_study_is_noticed(copies, monkeypatch, file, old, new, complaint):
    monkeypatch.setattr(study, "STUDIES", copies / "labs" / "studies")
    monkeypatch.setattr(results, "RESULTS", copies / "labs" / "results")
    assert study.Study("07_grid").problems() == []
    change(copies / file, old, f"{old}{new}" if complaint == "data" else new)
    assert f"rows: {complaint}" in " ".join(study.Study("07_grid").problems())


def test_lab_whose_study_changed_is_noticed(copies, monkeypatch):
    monkeypatch.setattr(build, "RESULTS", copies / "labs" / "results")
    assert build.problems("07_tensorboard") == []
    change(copies / "labs/results/studies/07_grid.json", '"accuracy": 0.', '"accuracy": 0.0')
    assert "data studies/07_grid.json changed" in " ".join(build.problems("07_tensorboard"))


def test_changed_metric_is_noticed():
    result = committed(LAB, "quick")
    accepted = bars(LAB, "quick")
    for name, bar in accepted.items():
        worse = json.loads(json.dumps(result))
        side, sign = ("max", 1) if "max" in bar else ("min", -1)
        worse["metrics"][name] = bar[side] + sign * 1e-3 * max(1.0, abs(bar[side]))
        assert name in " ".join(misses(worse, accepted))


def test_number_typed_into_the_readme_is_noticed():
    text = readme.README.read_text(encoding="utf-8")
    typed = text.replace("| 14.08 |", "| 13.08 |")
    assert typed != text
    assert readme.replaced(typed) == text


def nbval(folder, notebook):
    """Run nbval on the cells up to the first compared one; return pytest's exit code and text."""
    shutil.copy(ROOT / "conftest.py", folder)
    file = folder / "short.ipynb"
    nbformat.write(notebook, file)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    command += ["--rootdir", str(folder), "-p", "no:cacheprovider", "--confcutdir", str(folder)]
    done = subprocess.run([*command, str(file)], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_changed_output_is_noticed_by_nbval(tmp_path):
    notebook = build.load_stored(LAB)
    ends = [
        i for i, cell in enumerate(notebook.cells) if "nbval-check-output" in cells.tags_of(cell)
    ]
    notebook.cells = notebook.cells[: ends[1] + 1]
    code, text = nbval(tmp_path, notebook)
    assert code == 0, text
    compared = cells.code(notebook)[-1]
    compared.outputs[0].text = compared.outputs[0].text.replace("True", "Truth")
    code, text = nbval(tmp_path, notebook)
    assert code == 1, text
    assert "1 failed" in text


def test_what_says_how_far_accuracies_are_apart_may_move_as_they_do():
    metrics = {"accuracy_gain_a": 0.1, "accuracy_a": 0.9, "calibration_error_a": 0.01}
    bars = bars_tool.margin_bars({"lab": LAB, "metrics": metrics}, 0.03, {})
    assert bars["accuracy_gain_a"]["min"] == pytest.approx(0.07)
    assert bars["accuracy_a"]["min"] == pytest.approx(0.873)
    assert bars["calibration_error_a"]["max"] == pytest.approx(0.04)


def test_runs_with_other_seeds_move_and_widen_a_range():
    result = {"lab": LAB, "metrics": {"loss_a": 2.0, "accuracy_b": 0.5, "accuracy_gain_c": 0.1}}
    more = {"loss_a": [2.2, 2.4], "accuracy_b": [0.5, 0.5], "accuracy_gain_c": [0.1, 0.1]}
    bars = bars_tool.margin_bars(result, 0.03, more)
    assert bars["loss_a"] == {"max": pytest.approx(2.2 + 4 * 0.2), "seeds": 3}
    assert bars["accuracy_b"] == {"min": pytest.approx(0.97 * 0.5), "seeds": 3}
    assert bars["accuracy_gain_c"]["min"] == pytest.approx(0.097)


def test_ranges_come_back_when_the_runs_for_new_ones_fail(tmp_path, monkeypatch):
    file = tmp_path / "bars.toml"
    file.write_text(text := "[a]\nmain = 'x'\n[a.quick]\nx = {min = 1}\n[b.quick]\ny = {min = 2}\n")
    monkeypatch.setattr(bars_tool, "BARS", file)

    def interrupted():
        with bars_tool.without("a", ["quick"]):
            assert "x = {min" not in file.read_text()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_text() == text


def test_sections_of_the_ranges_are_apart(tmp_path, monkeypatch):
    file = tmp_path / "bars.toml"
    file.write_text("[a]\nmain = 'x'\n[a.quick]\nx = {min = 1}\n[b]\nmain = 'y'\n")
    monkeypatch.setattr(bars_tool, "BARS", file)
    bars_tool.replace("a", ["quick"], {"x": {"max": 3, "seeds": 10}})
    assert file.read_text() == (
        "[a]\nmain = 'x'\n\n[a.quick]\nx = {max = 3, seeds = 10}\n\n[b]\nmain = 'y'\n"
    )


def test_accepted_range_ends_at_the_book_where_the_run_beats_it():
    def limit(value):
        result = {"lab": "04_cifar10", "metrics": {"accuracy_cnn": value, "gap_cnn": 0.1}}
        return bars_tool.margin_bars(result, 0.03, {})["accuracy_cnn"]["min"]

    printed = results.book("04_cifar10")["accuracy_cnn"]
    assert limit(1.001 * printed) == printed
    assert limit(1.1 * printed) == pytest.approx(0.97 * 1.1 * printed, rel=1e-3)
    assert limit(0.9 * printed) == pytest.approx(0.97 * 0.9 * printed, rel=1e-3)
