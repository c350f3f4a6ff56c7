"""Run what is missing of a study: a long experiment over seeds or a grid, one row after another.

A study is `labs/studies/NAME.py`. It defines `LAB`, whose set-up and definition cells it uses,
`CASES`, a list of settings (numbers and texts; the seed is one of them), and
`measure(definitions, settings)`, which returns metrics. A row is written to
`labs/results/studies/NAME.json` as soon as it is done. The same command goes on after an
interruption, and measures a row again when the code changed that decides it.

Each row runs in a process of its own, in the `standard` profile, with its setting `seed` as
`run.seed`: it cannot depend on the rows before it, its memory comes back, and a crash costs one
row. Loading TensorFlow takes some seconds a row; they are part of the row's `seconds`, so a metric
that is a time must be taken by `measure` itself. What a row prints goes to a file in the work
folder.
"""

import argparse
import json
import multiprocessing
import os
import runpy
import statistics
import sys
import threading
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path

from labkit import results
from labkit.paths import home, write
from tools import build, cells

STUDIES = cells.LABS / "studies"
KEPT = (
    "seconds",
    "peak_memory_mb",
    "numerics",
    "machine",
    "versions",
    "data",
    "source_sha256",
    "date",
)


class Study:
    """One study: its cases, and the rows that are done.

    Raises `ValueError` for a name that no script has, for a script that lacks a part, and for
    cases that are the same.
    """

    def __init__(self, name: str):
        if name not in names():
            raise ValueError(f"no study {name!r}; the studies are {', '.join(names())}")
        self.name, self.script = name, STUDIES / f"{name}.py"
        self.text = self.script.read_text(encoding="utf-8")
        defined = runpy.run_path(str(self.script))
        if missing := {"LAB", "CASES", "measure"} - set(defined):
            raise ValueError(f"{self.script.name} must define {', '.join(sorted(missing))}")
        self.lab, self.cases = defined["LAB"], defined["CASES"]
        if len({_key(case) for case in self.cases}) < len(self.cases):
            raise ValueError(f"{self.script.name}: two of its CASES are the same")
        self.rows = self._stored()

    def _stored(self) -> dict[str, dict]:
        return {_key(row["settings"]): row for row in results.study(self.name)}

    def sha256(self, case: dict) -> str:
        """Return the hash of the code that decides a row."""
        return cells.study_sha256(self.lab, self.text, case)

    def state(self, case: dict) -> str:
        """Return `done`, `missing`, or what changed since the row was measured."""
        row = self.rows.get(_key(case))
        if row is None:
            return "missing"
        if row["source_sha256"] != self.sha256(case):
            return "code changed"
        return "data changed" if build.changed_data(row["data"]) else "done"

    def add(self, case: dict, row: dict) -> None:
        """Keep a row in the file, which holds the rows of all cases in their order, no others.

        Rows that another process added meanwhile (`--only` shares the work) stay.
        """
        self.rows = self._stored() | {_key(case): row}
        rows = [self.rows[key] for key in map(_key, self.cases) if key in self.rows]
        content = {"study": self.name, "lab": self.lab, "rows": rows}
        write(results.study_file(self.name), f"{json.dumps(content, indent=1)}\n".encode())

    def problems(self) -> list[str]:
        """Return what is missing or out of date, a sentence each."""
        counts: dict[str, int] = {}
        for state in map(self.state, self.cases):
            counts[state] = counts.get(state, 0) + 1
        counts["no longer in CASES"] = len(self.rows.keys() - set(map(_key, self.cases)))
        return [
            f"study {self.name}: {count} of {len(self.cases)} rows: {state}; "
            f"run `python -m tools.study {self.name}`"
            for state, count in counts.items()
            if count and state != "done"
        ]


def names() -> list[str]:
    """Return the names of all studies."""
    return sorted(file.stem for file in STUDIES.glob("[0-9]*.py"))


def run(study: Study, wanted: list[dict]) -> int:
    """Measure the rows of `wanted` that are not done; return how many failed."""
    todo = [case for case in wanted if study.state(case) != "done"]
    print(f"{study.name}: {len(todo)} of {len(wanted)} rows to measure", flush=True)
    failed = 0
    for number, case in enumerate(todo, start=1):
        row = _in_a_process(study.name, case, study.sha256(case))
        failed += "error" in row
        if "error" in row:
            print(f"{number}/{len(todo)} {_words(case)} FAILED: {row['error']}", flush=True)
            print(f"  what it printed is in {_log(study.name)}", flush=True)
            continue
        study.add(case, row)
        left = statistics.fmean(r["seconds"] for r in study.rows.values()) * (len(todo) - number)
        print(
            f"{number}/{len(todo)} {_words(case)}: {_words(row['metrics'])} "
            f"({row['seconds']:.0f} s, about {left / 60:.0f} min left)",
            flush=True,
        )
    return failed


# --- one row, in a process of its own ------------------------------------------------------------


def _in_a_process(name: str, case: dict, sha256: str) -> dict:
    """Return a row, or `{"error": …}` when its process raised or died."""
    context = multiprocessing.get_context("spawn")  # a forked TensorFlow hangs
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, name, case, sha256))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return {"error": f"its process ended with exit code {process.exitcode}"}
    finally:
        process.kill()  # it is done, or this process was interrupted
        process.join()


def _child(sender: Connection, name: str, case: dict, sha256: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= {"LABS_PROFILE": "standard", "LABS_SOURCE_SHA256": sha256}
    os.environ["LABS_SEED"] = str(case.get("seed", 0))
    _log(name).parent.mkdir(parents=True, exist_ok=True)
    log = os.open(_log(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)  # libraries write past Python
    os.dup2(log, 2)
    try:
        row = measured(name, case)
    except Exception as error:
        traceback.print_exc()
        row = {"error": f"{type(error).__name__}: {error}"}
    sender.send(row)


def _end_with_parent() -> None:
    """Leave when the parent was killed: nobody would keep the row."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def measured(name: str, case: dict) -> dict:
    """Return one row, measured in this process: settings, metrics, and how they were measured."""
    script = runpy.run_path(str(STUDIES / f"{name}.py"))
    definitions = cells.load(script["LAB"])
    metrics = script["measure"](definitions, dict(case))
    facts = definitions["run"].result()
    definitions["run"].forget_finished()
    return {"settings": case, "metrics": metrics, **{key: facts[key] for key in KEPT}}


def _log(name: str) -> Path:
    return home() / "studies" / f"{name}.log"


def _key(settings: dict) -> str:
    return json.dumps(settings, sort_keys=True)


def _words(values: dict) -> str:
    """Return names and values in a line; lists and dicts, such as curves, are left out."""
    texts = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in values.items()}
    return ", ".join(
        f"{k} {text}" for k, text in texts.items() if not isinstance(text, list | dict)
    )


def main() -> int:
    """Run or list a study; 1 when a row failed, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", help="name, such as 07_grid; all are listed without")
    parser.add_argument("--only", nargs="+", metavar="KEY=VALUE", default=[], help="some rows")
    parser.add_argument("--list", action="store_true", help="say what is done; measure nothing")
    arguments = parser.parse_args()
    try:
        studies = [Study(name) for name in ([arguments.study] if arguments.study else names())]
        wanted = {study.name: _chosen(study, arguments.only) for study in studies}
    except ValueError as error:
        parser.error(str(error))
    if arguments.list or not arguments.study:
        for study in studies:
            for case in wanted[study.name]:
                print(f"{study.name}: {_words(case)}: {study.state(case)}")
        return 0
    try:
        return bool(run(studies[0], wanted[arguments.study]))
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on.")
        return 130


def _chosen(study: Study, conditions: list[str]) -> list[dict]:
    """Return the cases that meet all conditions `key=value`; `ValueError` when there are none."""
    pairs = [condition.partition("=")[::2] for condition in conditions]
    found = [c for c in study.cases if all(str(c.get(key)) == value for key, value in pairs)]
    if not found:
        raise ValueError(f"no row of {study.name} has {' '.join(conditions)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
