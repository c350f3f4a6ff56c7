"""Write the tables of README.md from `labs/results/` and `benchmarks/`; `--check` only compares."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import report
from labkit.paths import ROOT
from labkit.results import PROFILES, bars, book, committed, text
from tools import cells

README = ROOT / "README.md"
BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"


def table() -> str:
    """Return the table: one row a metric of the `standard` runs, the book's number beside ours."""
    rows = ["| lab | metric | book | ours | runs | accepted |", "|" + "---|" * 6]
    for lab in cells.labs():
        result = committed(lab, "standard")
        accepted = bars(lab, "standard", result.get("numerics", "float32"))
        for name, value in result.get("metrics", {}).items():
            printed = book(lab).get(name)
            rows.append(
                f"| {link(lab)} | `{name}` | {'–' if printed is None else f'{printed:g}'} "
                f"| {text(value)} | {value['seeds'] if isinstance(value, dict) else 1} "
                f"| {_range(accepted.get(name, {}))} |"
            )
        if not result:
            rows.append(f"| {link(lab)} | not measured | – | – | – | – |")
    return "\n".join([*costs(), "", *rows])


def costs() -> list[str]:
    """Return a table of seconds and memory, one row a lab and profile that was run."""
    rows = ["| lab | profile | minutes | memory | numerics | machine | date |", "|" + "---|" * 7]
    for lab in cells.labs():
        for profile in PROFILES:
            run = committed(lab, profile)
            if run:
                machine = run["machine"]["gpu"] or run["machine"]["processor"]
                rows.append(
                    f"| {link(lab)} | {profile} | {run['seconds'] / 60:.1f} "
                    f"| {run['peak_memory_mb'] / 1000:.1f} GB | {run['numerics']} "
                    f"| {machine}, {run['machine']['cores']} cores | {run['date']} |"
                )
            else:
                rows.append(f"| {link(lab)} | {profile} | not measured | – | – | – | – |")
    return rows


def link(lab: str) -> str:
    """Return a link to a lab's notebook."""
    return f"[{lab}](labs/{lab}.ipynb)"


def _range(bar: dict) -> str:
    signs = [f"{sign} {bar[side]:g}" for side, sign in (("min", "≥"), ("max", "≤")) if side in bar]
    return ", ".join(signs) or "–"


def replaced(text: str) -> str:
    """Return README text with the tables between their markers made anew."""
    return _replaced(_replaced(text, "results", table), "benchmarks", report.table)


def _replaced(text: str, name: str, make: Callable[[], str]) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"README.md lacks the markers {begin} and {end}")
    return f"{before}{begin}\n{make()}\n{end}{after}"


def write(file: Path = README) -> None:
    """Write the table into the README."""
    file.write_text(replaced(file.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


def main() -> int:
    """Write or check the README."""
    parser = argparse.ArgumentParser(prog="python -m tools.readme", description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        text = README.read_text(encoding="utf-8")
        print("up to date" if replaced(text) == text else "old: run `python -m tools.readme`")
        return replaced(text) != text
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
