"""Run labs at a profile and keep their outputs: `labs/*.ipynb`, `labs/results/`, the README table.

A render that was killed goes on when it is started again: the trainings in it are resumable.
"""

import argparse
import os
import sys

from labkit.paths import home, write
from labkit.results import PROFILES
from tools import build, cells, readme
from tools.execute import execute

import nbformat


def render(lab: str, profile: str) -> str:
    """Render one lab and write its notebook and result; return one line, raise on an error."""
    outcome = execute(lab, build.generate(lab), profile)
    tidy(outcome.notebook)
    if outcome.error:
        seen = home() / "renders" / f"{lab}.ipynb"
        write(seen, nbformat.writes(outcome.notebook).encode())
        raise RuntimeError(f"{lab}: nothing was kept but {seen}, to look at. {outcome.error}")
    outcome.keep()
    if outranked(lab, profile):
        build.write(lab)  # its head shows minutes and memory of every profile
        return f"{outcome.line()}; the notebook keeps its outputs of a larger profile"
    kept = ("profile", "numerics", "device", "machine", "versions", "data", "date")
    outcome.notebook.metadata.course = build.fingerprint(lab, profile) | {
        **{key: outcome.result[key] for key in kept},
        "aged": build.ageing_sha256(),
    }
    nbformat.write(outcome.notebook, cells.LABS / f"{lab}.ipynb")
    build.write(lab)
    return outcome.line()


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Take out what is only noise to others: time stamps, and paths of work folder and mirror."""
    paths = {str(home()): "work", os.environ.get("LABS_MIRROR", ""): "LABS_MIRROR"}
    for cell in cells.code(notebook):
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            for path, name in paths.items():
                if path and "text" in output:
                    output.text = output.text.replace(path, name)


def outranked(lab: str, profile: str) -> bool:
    """Return whether the notebook has outputs of the same code at a larger profile."""
    stored = build.load_stored(lab)
    made = stored.metadata.get("course", {}) if stored else {}
    larger = PROFILES[PROFILES.index(profile) + 1 :]
    return made.get("profile") in larger and (
        build.fingerprint(lab, made["profile"]).items() <= dict(made).items()
    )


def main() -> int:
    """Render the named labs."""
    parser = argparse.ArgumentParser(prog="python -m tools.render", description=__doc__)
    parser.add_argument("labs", nargs="+", help="numbers or names, such as 02")
    parser.add_argument("--profile", choices=PROFILES, default="standard")
    arguments = parser.parse_args()
    for lab in cells.labs(*arguments.labs):
        print(render(lab, arguments.profile), flush=True)
    readme.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
