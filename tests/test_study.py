"""Studies: each row once, nothing lost, old rows noticed; tried on a tiny one in a copy."""

import json
import os
import shutil
import subprocess
import sys
import time

from labkit import data, results
from labkit.paths import ROOT
from tools import build, study

import psutil
import pytest

LAB = """
# %% tags=["setup"]
import math, os
import types
from preprocessing import scale
from labkit import data
facts = dict.fromkeys(["numerics", "machine", "versions", "data", "date"], {})
facts |= {"seconds": 1.0, "peak_memory_mb": 1, "source_sha256": os.environ["LABS_SOURCE_SHA256"]}
run = types.SimpleNamespace(
    result=lambda: facts, forget_finished=lambda: None, scale=lambda **sizes: sizes["standard"]
)

# %% tags=["definition"]
FACTOR = run.scale(quick=1, standard=2, full=3)

def double(x):
    "Return the double."
    return FACTOR * scale(x)

def triple(x):
    return 3 * x

# %%
print("not a definition")
"""
STUDY = """
import os, pathlib, time
LAB = "00_tiny"
CASES = [{"function": f, "x": x} for f in ("double", "triple") for x in (1, 2)]
HOME = pathlib.Path(os.environ["LABS_HOME"])

def measure(definitions, settings):
    (HOME / "child").write_text(str(os.getpid()))
    with (HOME / "measured").open("a") as file:
        file.write(f"{settings['function']}{settings['x']} ")
    while (HOME / "wait").exists() and settings["x"] == 2:
        time.sleep(0.05)
    if (HOME / "fail").exists():
        os._exit(3) if settings["x"] == 1 else 1 / 0
    return {"y": definitions[settings["function"]](settings["x"])}
"""
PREPROCESSING = "def scale(x):\n    return x\n\ndef unused(x):\n    return x\n"


@pytest.fixture
def folder(tmp_path):
    """Return a copy of the repository with one tiny lab and one tiny study."""
    for name in ("labkit", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "preprocessing.py").write_text(PREPROCESSING)
    for place, text in (("source/00_tiny.py", LAB), ("studies/00_double.py", STUDY)):
        (tmp_path / "labs" / place).parent.mkdir(parents=True)
        (tmp_path / "labs" / place).write_text(text)
    (tmp_path / "work").mkdir()
    return tmp_path


def begin(folder, *arguments):
    env = {**os.environ, "PYTHONPATH": str(folder), "LABS_HOME": str(folder / "work")}
    command = [sys.executable, "-m", "tools.study", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=env, **pipes)


def run(folder, *arguments, code=0):
    """Run the command to its end and return what it printed."""
    process = begin(folder, *arguments)
    output, error = process.communicate(timeout=120)
    assert process.returncode == code, output + error
    return output + error


def rows(folder):
    file = folder / "labs" / "results" / "studies" / "00_double.json"
    return json.loads(file.read_text())["rows"] if file.exists() else []


def measured(folder):
    """Return which rows were measured since the last call."""
    file = folder / "work" / "measured"
    found = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_each_row_is_measured_once_and_kept(folder):
    printed = run(folder, "00_double", "--only", "function=double")
    assert measured(folder) == ["double1", "double2"]
    assert "2/2 function double, x 2: y 4 (1 s, about 0 min left)" in printed
    run(folder, "00_double")
    assert measured(folder) == ["triple1", "triple2"]
    assert [row["metrics"]["y"] for row in rows(folder)] == [2, 4, 3, 6]
    assert set(rows(folder)[0]) == {"settings", "metrics", *study.KEPT}
    assert "0 of 4 rows to measure" in run(folder, "00_double")
    assert run(folder, "--list").count("done") == 4


def test_changed_code_measures_only_what_it_decides(folder):
    run(folder, "00_double")
    measured(folder)
    lab, script = folder / "labs/source/00_tiny.py", folder / "labs/studies/00_double.py"
    change(lab, "import math, os", "import cmath, os")
    change(lab, "not a definition", "still none")
    change(lab, "Return the double.", "Return twice as much.")
    change(lab, "quick=1", "quick=0")
    change(script, "(1, 2)", "(2, 5)")
    change(folder / "preprocessing.py", "unused(x):\n    return x", "unused(x):\n    return 0")
    run(folder, "00_double")
    assert measured(folder) == ["double5", "triple5"]
    assert [row["settings"]["x"] for row in rows(folder)] == [2, 5, 2, 5]
    change(lab, "return 3 * x", "return 4 * x")
    assert run(folder, "--list").count("code changed") == 2
    run(folder, "00_double")
    assert measured(folder) == ["triple2", "triple5"]
    change(lab, "standard=2", "standard=7")
    run(folder, "00_double")
    assert measured(folder) == ["double2", "double5"]
    change(folder / "preprocessing.py", "return x", "return x + 1")
    run(folder, "00_double")
    assert measured(folder) == ["double2", "double5"]
    assert [row["metrics"]["y"] for row in rows(folder)] == [21, 42, 8, 20]
    change(script, 'return {"y": ', 'return {"z": ')
    assert run(folder, "--list").count("code changed") == 4


def test_killed_study_loses_nothing_and_leaves_no_process(folder):
    (folder / "work" / "wait").touch()
    process = begin(folder, "00_double")
    until(lambda: "double2" in (folder / "work" / "measured").read_text())
    child = psutil.Process(int((folder / "work" / "child").read_text()))
    process.kill()
    process.communicate()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert len(rows(folder)) == 1
    (folder / "work" / "wait").unlink()
    measured(folder)
    run(folder, "00_double")
    assert measured(folder) == ["double2", "triple1", "triple2"]
    assert len(rows(folder)) == 4


def until(condition):
    """Wait until a condition holds; a file that is not there yet is no error."""
    for _ in range(600):
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        time.sleep(0.1)
    raise TimeoutError


def test_failed_row_does_not_stop_the_others(folder):
    (folder / "work" / "fail").touch()
    printed = run(folder, "00_double", code=1)
    assert measured(folder) == ["double1", "double2", "triple1", "triple2"]
    assert "its process ended with exit code 3" in printed
    assert "FAILED: ZeroDivisionError: division by zero" in printed
    assert rows(folder) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["01_none"], "the studies are 00_double"), (["00_double", "--only", "x=7"], "no row of")],
)
def test_wrong_name_says_what_there_is(folder, arguments, complaint):
    assert complaint in run(folder, *arguments, code=2)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [("CASES = ", "ROWS = ", "must define CASES"), ("(1, 2)", "(1, 1)", "are the same")],
)
def test_wrong_script_says_what_is_wrong(folder, old, new, complaint):
    change(folder / "labs/studies/00_double.py", old, new)
    assert complaint in run(folder, "00_double", code=2)


# --- the studies of the course --------------------------------------------------------------------


@pytest.fixture(params=study.names())
def name(request):
    return request.param


def test_study_is_whole_and_fresh(name):
    assert study.Study(name).problems() == []


def test_rows_are_whole(name):
    for row in results.study(name):
        assert set(row) == {"settings", "metrics", *study.KEPT}
        assert row["seconds"] > 0


def test_result_files_belong_to_studies():
    assert {file.stem for file in (results.RESULTS / "studies").glob("*")} <= set(study.names())


def test_who_reads_a_study_depends_on_it(name, tmp_path, monkeypatch):
    results.study(name)
    used = {f"studies/{name}.json": data.used()[f"studies/{name}.json"]}
    assert build.changed_data(used) == []
    (tmp_path / "studies").mkdir()
    text = results.study_file(name).read_text().replace('"date": "2', '"date": "3', 1)
    (tmp_path / "studies" / f"{name}.json").write_text(text)
    monkeypatch.setattr(build, "RESULTS", tmp_path)
    assert build.changed_data(used) == [f"studies/{name}.json"]
