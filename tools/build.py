"""Make `labs/*.ipynb` and `labs/solutions/*.ipynb` from the sources; `--check` only compares.

Outputs are kept as long as the code that made them is the same: a change of prose alone refreshes
the notebook without running it.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from labkit import data
from labkit.paths import ROOT
from labkit.results import PROFILES, RESULTS, committed
from tools import cells

import nbformat

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
AGEING = ("labkit", "constraints.txt")  # a change there makes outputs old, not wrong


def build(lab: str) -> nbformat.NotebookNode:
    """Return the student's notebook of a lab, with the outputs of unchanged cells."""
    notebook, stored = generate(lab), load_stored(lab)
    if stored is None:
        return notebook
    made = stored.metadata.get("course", {})
    if made and fingerprint(lab, made["profile"])["code_sha256"] == made["code_sha256"]:
        for new, old in zip(cells.code(notebook), cells.code(stored), strict=True):
            new.outputs, new.execution_count = old.outputs, old.execution_count
        notebook.metadata.course = made
    return notebook


def generate(lab: str, convert=cells.student) -> nbformat.NotebookNode:
    """Return the notebook of a lab without outputs, stubs in place of solutions."""
    source = cells.read(lab)
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.source = convert(cell.source)
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = cell.source.replace("{{cost}}", cost(lab))
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=source.cells, metadata=metadata)


def cost(lab: str) -> str:
    """Return minutes and memory of each profile, as measured, for the head of a notebook."""
    texts = []
    for profile in PROFILES:
        run = committed(lab, profile)
        measured = (
            f"{run['seconds'] / 60:.1f} min, {run['peak_memory_mb'] / 1000:.1f} GB" if run else ""
        )
        texts.append(f"`{profile}` {measured or 'not measured'}")
    return f"**Time and memory** on 2 CPU cores: {', '.join(texts)}."


def load_stored(lab: str) -> nbformat.NotebookNode | None:
    """Return the committed notebook of a lab, if there is one."""
    file = cells.LABS / f"{lab}.ipynb"
    return nbformat.read(file, as_version=4) if file.exists() else None


def fingerprint(lab: str, profile: str) -> dict[str, str]:
    """Return the hashes of what decides a lab's outputs in a profile; data come with the result."""
    source = cells.read(lab)
    return {
        "code_sha256": cells.code_sha256(source, profile),
        "preprocessing_sha256": cells.preprocessing_sha256(source, profile),
    }


def source_sha256(lab: str, profile: str) -> str:
    """Return one hash of what decides a lab's outputs in a profile, for its result file."""
    return hashlib.sha256(json.dumps(fingerprint(lab, profile)).encode()).hexdigest()


def ageing_sha256() -> str:
    """Return a hash of `labkit` and the pins."""
    files = sorted(file for name in AGEING for file in _files(ROOT / name))
    text = "\0".join(file.read_text(encoding="utf-8") for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def problems(lab: str) -> list[str]:
    """Return what is out of date in the committed notebooks of a lab, a sentence each."""
    found = []
    stored = load_stored(lab)
    if stored is None:
        return [f"{lab}: no notebook; run `python -m tools.render {lab[:2]}`"]
    made = stored.metadata.get("course", {})
    for key, value in fingerprint(lab, made.get("profile", PROFILES[0])).items():
        if made.get(key) != value:
            found.append(f"{lab}: {key} changed since the outputs were made; render it again")
    for name in changed_data(made.get("data", {})):
        found.append(f"{lab}: data {name} changed since the outputs were made; render it again")
    if not found and not _same(build(lab), stored):
        found.append(f"{lab}: prose changed; run `python -m tools.build`")
    if not _same(generate(lab, cells.solution), _read(_solution(lab))):
        found.append(f"{lab}: the solution notebook is old; run `python -m tools.build`")
    return found


def changed_data(used: dict[str, str]) -> list[str]:
    """Return which files, of data sets or of studies, are no longer those that were used."""
    return [name for name, sha256 in used.items() if not _is_current(name, sha256)]


def _is_current(name: str, sha256: str) -> bool:
    """Tell whether `dataset/file`, or `studies/NAME.json`, is still the one with this hash."""
    folder, file = name.split("/", 1)
    if folder != "studies":
        return data.current(folder, file, sha256)
    study = RESULTS / name
    return study.exists() and hashlib.sha256(study.read_bytes()).hexdigest() == sha256


def aged(lab: str) -> bool:
    """Return whether `labkit` or the pins changed since a lab's outputs were made."""
    stored = load_stored(lab)
    return stored is not None and stored.metadata.get("course", {}).get("aged") != ageing_sha256()


def write(lab: str) -> None:
    """Write a lab's notebooks, student's and solved."""
    nbformat.write(build(lab), cells.LABS / f"{lab}.ipynb")
    _solution(lab).parent.mkdir(exist_ok=True)
    nbformat.write(generate(lab, cells.solution), _solution(lab))


def _solution(lab: str) -> Path:
    return cells.LABS / "solutions" / f"{lab}.ipynb"


def _read(file: Path) -> nbformat.NotebookNode | None:
    return nbformat.read(file, as_version=4) if file.exists() else None


def _same(a: nbformat.NotebookNode | None, b: nbformat.NotebookNode | None) -> bool:
    """Return whether two notebooks have the same cells, outputs included."""
    return a is not None and b is not None and nbformat.writes(a) == nbformat.writes(b)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.py")) if path.is_dir() else [path]


def main() -> int:
    """Build, or check, the named labs; without a name all of them."""
    parser = argparse.ArgumentParser(prog="python -m tools.build", description=__doc__)
    parser.add_argument("labs", nargs="*", help="numbers or names; all when left out")
    parser.add_argument("--check", action="store_true", help="write nothing, report what is old")
    arguments = parser.parse_args()
    found = []
    for lab in cells.labs(*arguments.labs):
        if not arguments.check:
            write(lab)
        found += problems(lab)
        if aged(lab):
            print(f"{lab}: aged: labkit or the pins changed since its outputs were made")
    print("\n".join(found) or "All notebooks are up to date.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
