"""Each exercise accepts its solution, knows an untouched stub, and rejects typical mistakes.

The mistakes stand in `tests/mistakes/<lab>.py`: cells `# %% <grade_id>: <words of the hint>`.
"""

import re
import time

from labkit.paths import ROOT
from tools import cells

import pytest

MISTAKES = ROOT / "tests" / "mistakes"


def exercises():
    """Return (lab, grade_id) of every exercise."""
    return [
        (lab, cell.metadata["nbgrader"]["grade_id"].removesuffix("_check"))
        for lab in cells.labs()
        for cell in cells.code(cells.read(lab))
        if cell.metadata.get("nbgrader", {}).get("grade")
    ]


def mistakes():
    """Return (lab, grade_id, words of the hint, code) of every stored mistake."""
    found = []
    for lab in cells.labs():
        text = (MISTAKES / f"{lab}.py").read_text(encoding="utf-8")
        for part in re.split(r"^# %% ", text, flags=re.MULTILINE)[1:]:
            head, code = part.split("\n", 1)
            grade_id, hint = head.split(": ", 1)
            found.append((lab, grade_id, hint, code))
    return found


@pytest.fixture(scope="module")
def setups():
    """Return the names that a lab's set-up cell defines, made once for each lab."""
    return {lab: cells.load(lab, "setup") for lab in cells.labs()}


@pytest.fixture(autouse=True)
def graded(monkeypatch):
    monkeypatch.setenv("LABS_GRADE", "1")


def cell(lab, grade_id):
    return next(c for c in cells.code(cells.read(lab)) if grade_id in cells.tags_of(c))


def check(lab, grade_id, code, setups):
    """Run an answer and the check of its exercise, after nothing but the set-up cell."""
    names = dict(setups[lab])
    exec(code, names)
    exec(cell(lab, f"{grade_id}_check").source, names)


@pytest.mark.parametrize(("lab", "grade_id"), exercises())
def test_solution_passes_in_time(lab, grade_id, setups):
    begin = time.perf_counter()
    check(lab, grade_id, cells.solution(cell(lab, grade_id).source), setups)
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(("lab", "grade_id"), exercises())
def test_stub_is_not_attempted(lab, grade_id, setups, monkeypatch, capsys):
    stub = cells.student(cell(lab, grade_id).source)
    with pytest.raises(AssertionError, match="not attempted"):
        check(lab, grade_id, stub, setups)
    monkeypatch.delenv("LABS_GRADE")
    check(lab, grade_id, stub, setups)
    captured = capsys.readouterr()
    assert "not attempted" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(("lab", "grade_id", "hint", "code"), mistakes())
def test_mistake_is_rejected_with_a_hint(lab, grade_id, hint, code, setups):
    with pytest.raises(AssertionError, match=re.escape(hint)):
        check(lab, grade_id, code, setups)


@pytest.mark.parametrize(("lab", "grade_id"), exercises())
def test_there_are_three_mistakes(lab, grade_id):
    assert [(m[0], m[1]) for m in mistakes()].count((lab, grade_id)) >= 3


@pytest.mark.parametrize("name", ["LABS_GRADE", "NBGRADER_EXECUTION"])
def test_an_answer_that_crashes_gets_no_points(monkeypatch, name):
    from labkit.exercise import Exercise

    monkeypatch.delenv("LABS_GRADE")
    monkeypatch.setenv(name, "autograde")
    with (
        pytest.raises(AssertionError, match="ZeroDivisionError"),
        Exercise(test_there_are_three_mistakes),
    ):
        raise ZeroDivisionError
