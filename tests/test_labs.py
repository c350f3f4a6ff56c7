"""Every lab is whole, fresh and readable: what the course promises of each notebook."""

import ast
import builtins
import dis
import inspect
import json
import re

from labkit.paths import ROOT
from labkit.results import PROFILES, RESULTS, bars, committed, main_metric, misses
from tools import build, cells, readme, render
from tools.bars import SPEED
from tools.execute import Outcome

import nbformat
import pytest

LABS = cells.labs()
RUN = ["lab", "profile", "numerics", "device", "seed", "metrics", "seconds", "peak_memory_mb"]
ORIGIN = ["machine", "versions", "data", "source_sha256", "date"]
PICTURES = ("04_cifar10", "11_gan", "12_object_detection")  # pictures are their subject
LIMITS_MB = dict.fromkeys(PICTURES, 2.0)


@pytest.fixture(params=LABS)
def lab(request):
    return request.param


@pytest.fixture
def notebook(lab):
    return build.load_stored(lab)


def code(lab):
    return cells.code(cells.read(lab))


def test_notebooks_are_what_their_sources_make(lab):
    assert build.problems(lab) == []


def test_readme_shows_the_results():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.replaced(text) == text, "run `python -m tools.readme`"


def test_notebook_is_valid_and_comes_from_one_clean_run(notebook):
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in cells.code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    for output in outputs(notebook):
        assert output.output_type != "error"
        if output.get("name") == "stderr":  # nothing but "Fetching …", "Preparing …" of the data
            assert all(line.endswith("...") for line in output.text.splitlines())


def outputs(notebook):
    return [output for cell in cells.code(notebook) for output in cell.outputs]


def test_every_picture_has_a_text_and_a_caption(notebook):
    pictures = [
        o for o in outputs(notebook) if {"image/png", "image/jpeg"} & set(o.get("data", []))
    ]
    assert pictures
    captions = "".join(
        o.data["text/markdown"] for o in outputs(notebook) if "text/markdown" in o.get("data", [])
    )
    for picture in pictures:
        kind = next(kind for kind in ("image/png", "image/jpeg") if kind in picture.data)
        assert picture.metadata[kind]["alt"] in captions


def test_notebook_is_small_and_names_no_folder_of_a_machine(lab, notebook):
    text = nbformat.writes(notebook)
    assert len(text) < LIMITS_MB.get(lab, 1.0) * 1e6
    assert not re.search(r"/(home|root|tmp|Users)/|[A-Z]:\\\\", text)


def test_a_render_leaves_out_time_stamps_and_paths_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    monkeypatch.setenv("LABS_MIRROR", "/mnt/course")
    stamps = {"iopub.status.busy": "2026-01-31T12:00:00Z"}
    text = f"/mnt/course/weights: not there\nPut it at {tmp_path / 'cache' / 'x.h5'},\n"
    output = nbformat.v4.new_output("stream", text=text)
    cell = nbformat.v4.new_code_cell("fetch()", outputs=[output], metadata={"execution": stamps})
    notebook = nbformat.v4.new_notebook(cells=[cell])
    render.tidy(notebook)
    (cell,) = notebook.cells
    assert cell.outputs[0].text == "LABS_MIRROR/weights: not there\nPut it at work/cache/x.h5,\n"
    assert "execution" not in cell.metadata


def test_a_render_that_fails_keeps_its_page_to_look_at(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("run.check()")])
    failed = Outcome("02_house_prices", page, {}, "AssertionError: outside the bars")
    monkeypatch.setattr(render, "execute", lambda *_: failed)
    with pytest.raises(RuntimeError, match=r"to look at.*outside the bars"):
        render.render("02_house_prices", "quick")
    assert nbformat.read(tmp_path / "renders" / "02_house_prices.ipynb", 4) == page


def test_anatomy(lab):
    source = cells.read(lab)
    first, setup = source.cells[0], source.cells[1]
    assert first.source.startswith("# Lab")
    assert "{{cost}}" in first.source
    assert "labkit.start" in setup.source.splitlines()[-1]
    assert len([line for line in setup.source.splitlines() if line]) <= 6
    assert source.cells[-1].source == "run.check()"
    headings = "\n".join(c.source for c in source.cells if c.cell_type == "markdown")
    for needed in ("Experiment", "Results", "Exercises", "What to remember", "Read on"):
        assert needed in headings
    assert headings.count("Predict first") + headings.count("Before you run") >= 2


def test_cells_are_short_and_do_not_ask_for_the_profile(lab):
    for cell in code(lab):
        student = cells.student(cell.source)
        assert len(student.splitlines()) <= 40, student.splitlines()[0]
        for node in ast.walk(ast.parse(cells.python(student))):
            if isinstance(node, ast.If | ast.IfExp):
                assert "profile" not in ast.unparse(node.test)


def test_enough_cells_are_compared_and_enough_exercises_are_there(lab):
    tagged = [cell for cell in code(lab) if "nbval-check-output" in cells.tags_of(cell)]
    graded = [cell for cell in code(lab) if cell.metadata.get("nbgrader", {}).get("grade")]
    assert len(tagged) >= 5
    assert len(graded) >= 3


@pytest.mark.parametrize("profile", PROFILES)
def test_committed_results_are_whole_and_within_their_bars(lab, profile):
    result = committed(lab, profile)
    if result:
        assert sorted(result) == sorted(RUN + ORIGIN)
        accepted = bars(lab, profile, result["numerics"])
        speeds = {name for name in result["metrics"] if name.startswith(SPEED)}
        assert set(accepted) == set(result["metrics"]) - speeds
        assert misses(result, accepted) == []
        assert result["source_sha256"] == build.source_sha256(lab, profile), "measure it again"


def test_main_metric_has_a_range(lab):
    assert main_metric(lab) in bars(lab, "quick")


def test_notebook_shows_the_largest_profile_that_was_measured(lab, notebook):
    measured = [profile for profile in PROFILES if committed(lab, profile)]
    assert "quick" in measured
    assert notebook.metadata.course.profile == measured[-1]


def test_definitions_need_nothing_but_set_up_and_definitions(lab):
    names = cells.load(lab)
    known = {*names, *vars(builtins), "__file__"}  # which every program has
    for function in names.values():
        if inspect.isfunction(function) and function.__module__ == f"labs_{lab}":
            used = {i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
            assert used <= known, function.__name__


def test_links_within_the_repository_lead_somewhere(lab):
    prose = [cell.source for cell in cells.read(lab).cells if cell.cell_type == "markdown"]
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", "\n".join(prose)):
        assert (ROOT / "labs" / target).exists(), target


def test_result_files_belong_to_labs():
    for file in RESULTS.glob("*.json"):
        name, profile = file.stem.split(".")
        assert name in LABS
        assert profile in PROFILES
        json.loads(file.read_text(encoding="utf-8"))
