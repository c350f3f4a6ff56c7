"""Measure how fast the course is on this machine and write it down: `python -m benchmarks`.

Takes about ten minutes, in which nothing else may run. Results: `benchmarks/results.json` and
the table in README.md. PyTorch is compared when this Python has it (`pip install -r
requirements-benchmarks.txt`) or the one given by `--torch`; without it, its row says so.
"""

import argparse
import datetime
import importlib.util
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import measure, report
from labkit.paths import ROOT, write
from labkit.results import committed, number
from tools import readme

import psutil

BUSY = 0.3  # processors in use, on average over the last minute
FAST_LAB, FAST_METRIC = "05_initialization_and_batchnorm", "seconds_to_book_best"
ISA = "ONEDNN_MAX_CPU_ISA"
SHAPES = ((64, 32, 64), (128, 16, 128), (128, 16, 256), (256, 8, 256), (128, 8, 512))
# How much each measurement takes; `share` is that of the networks' widths.
SIZES = {
    "step": {"steps": 15, "repeats": 5, "share": 1.0, "batch_size": 64},
    "ceiling": {"steps": 3, "repeats": 3, "share": 1.0, "shapes": SHAPES},
    "augment": {"images": 12_800, "repeats": 5},
    "wait": {"steps": 30, "repeats": 3, "share": 1.0, "copies": 20},
    "recipe": {"steps": 40, "repeats": 3, "share": 1.0, "batch_size": 64, "copies": 20},
}


class BusyError(RuntimeError):
    """Something else is computing: times would say nothing."""


def require_idle(limit: float = BUSY, wait: float = 0.0) -> float:
    """Return the load of the last minute; raise `BusyError` if it is above `limit`.

    With `wait`, look again every five seconds, for so many seconds, before giving up.
    """
    end = time.monotonic() + wait
    while (load := psutil.getloadavg()[0]) > limit:
        if time.monotonic() >= end:
            raise BusyError(
                f"this machine is busy: {load:.1f} processors were in use over the last minute, "
                f"and at most {limit} may be. Close other programs, wait a minute and try again; "
                "--wait 300 waits up to 300 seconds for it."
            )
        time.sleep(5)
    return load


def run_task(name: str, sizes: dict, **environment: str) -> dict:
    """Run one of `benchmarks.tasks` in a process of its own and return what it printed.

    Raises `RuntimeError` with the end of its complaint when it failed.
    """
    command = [sys.executable, "-m", "benchmarks.tasks", name, "--sizes", json.dumps(sizes)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {' '.join(done.stderr.strip().splitlines()[-3:])}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def contestants(sizes: dict, policy: str, torch: str | None) -> dict[str, list[str]]:
    """Return the command of each worker of (a); PyTorch's in the dtype of ours, and in float32."""
    counts = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    ours = [sys.executable, "-m", "benchmarks.keras_step"]
    found = {name: [*ours, name, *counts] for name in ("ours", "default", "xla")}
    dtype = "bfloat16" if policy.endswith("bfloat16") else "float32"
    if torch:
        theirs = [torch, str(ROOT / "benchmarks" / "torch_step.py"), *counts]
        found["PyTorch, float32"] = [*theirs, "--dtype=float32"]
        found[f"PyTorch, {dtype}"] = [*theirs, f"--dtype={dtype}"]
        found[f"PyTorch, {dtype}, compiled"] = [*theirs, f"--dtype={dtype}", "--compiled"]
    return found


def training_step(sizes: dict, repeats: int, policy: str, torch: str | None, **environment) -> dict:
    """Return the ratios of (a): a step as Keras does it, as PyTorch does at best, and as we do."""
    workers, failed = {}, {}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        for number, (name, command) in enumerate(contestants(sizes, policy, torch).items()):
            try:
                worker = measure.Worker(command, Path(folder) / str(number), **environment)
            except measure.WorkerError as error:
                if name in ("ours", "default"):
                    raise
                failed[name] = str(error)  # no compiler, no bfloat16: the others still compete
            else:
                stack.callback(worker.close)
                workers[name] = worker
        parameters = {worker.about["parameters"] for worker in workers.values()}
        if len(parameters) != 1:
            raise RuntimeError(f"the networks differ: they have {parameters} parameters")
        seconds = measure.take_turns({n: w.turn for n, w in workers.items()}, repeats)
    return step_ratios(seconds) | {"failed": failed, "noise": measure.noise(seconds["ours"])}


def step_ratios(seconds: dict[str, list[float]]) -> dict:
    """Return both ratios of (a) from the seconds of each contestant's turns."""
    medians = {name: measure.summary(turns)["value"] for name, turns in seconds.items()}
    theirs = [name for name in medians if name.startswith("PyTorch")]
    best = min(theirs, key=medians.get, default=None)
    against_torch = (
        measure.ratio(seconds[best], seconds["ours"]) | {"best": best}
        if best
        else {"why": "no PyTorch"}
    )
    return {
        "step_against_keras": measure.ratio(seconds["default"], seconds["ours"]),
        "step_against_torch": against_torch,
        "step_seconds": medians,
    }


def time_to_book_best(recipe: dict, machine: dict, limited: bool) -> dict:
    """Return lab 5's seconds to the book's best result as a share of the book's recipe's (e).

    The seconds come from the committed `standard` run of lab 5, metric `seconds_to_book_best`; they
    count only where they were measured on this machine with the same instructions.
    """
    result = committed(FAST_LAB, "standard")
    seconds = number(result.get("metrics", {}).get(FAST_METRIC))
    if "value" not in recipe:
        return recipe
    found = {"recipe": recipe}
    if limited:
        return found | {"why": "lab 5 ran with all instructions"}
    if seconds is None:
        return found | {"why": "lab 5 has not been run yet"}
    same = all(result["machine"][key] == machine[key] for key in ("processor", "cores"))
    if not same:
        return found | {"why": "lab 5 was run on another machine"}
    low, high = (seconds / recipe[side] for side in ("high", "low"))
    return found | {
        "value": seconds / recipe["value"],
        "low": low,
        "high": high,
        "our_seconds": seconds,
    }


def measure_all(sizes: dict, torch: str | None, limited: bool) -> dict:
    """Run every measurement, with all instructions or `limited` to AVX2, and return the results."""
    environment = {ISA: "AVX2"} if limited else {}
    about = run_task("machine", {}, **environment)
    part = {"machine": about}
    step = dict(sizes["step"])
    repeats = step.pop("repeats")
    _say("training step (a)", limited)
    try:
        part |= training_step(step, repeats, about["policy"], torch, **environment)
    except RuntimeError as error:
        part |= {key: {"why": str(error)} for key in ("step_against_keras", "step_against_torch")}
    for key, name, text in (
        ("share_of_ceiling", "ceiling", "share of the convolution ceiling (b)"),
        ("augmentation", "augment", "augmentation (c)"),
        ("waiting", "wait", "waiting for input (d)"),
        ("recipe", "recipe", "the book's recipe (e)"),
    ):
        _say(text, limited)
        try:
            part[key] = run_task(name, sizes[name], **environment)
        except RuntimeError as error:  # the others are worth their minutes all the same
            part[key] = {"why": str(error)}
    recipe = part.pop("recipe")
    return part | {"time_to_book_best": time_to_book_best(recipe, about["machine"], limited)}


def torch_python(asked: str | None) -> str | None:
    """Return the Python that has PyTorch: the one asked for, this one, or none.

    Raises `RuntimeError` when the one asked for has none.
    """
    if asked:
        done = subprocess.run([asked, "-c", "import torch"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{asked} has no PyTorch: {done.stderr.strip().splitlines()[-1]}")
        return asked
    return sys.executable if importlib.util.find_spec("torch") else None


def _say(text: str, limited: bool) -> None:
    print(f"{'AVX2' if limited else 'all'}: {text} …", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, write the results and the README's table, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has PyTorch")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="to become idle")
    parser.add_argument("--print", action="store_true", help="only print the table of results.json")
    options = parser.parse_args()
    if options.print:
        print(report.table())
        return 0
    os.environ.pop(ISA, None)
    begin = time.monotonic()
    try:
        load = require_idle(wait=options.wait)
        torch = torch_python(options.torch)
    except (BusyError, RuntimeError) as error:
        print(f"Not measured: {error}", file=sys.stderr)
        return 2
    waited = time.monotonic() - begin
    parts = {
        name: measure_all(SIZES, torch, limited)
        for name, limited in (("default", False), ("AVX2", True))
    }
    results = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.monotonic() - begin - waited),
        "load_before": round(load, 2),
        "torch": torch and _torch_version(torch),
        "sizes": SIZES,
        "parts": parts,
    }
    write(report.RESULTS, f"{json.dumps(results, indent=1)}\n".encode())
    readme.write()
    print(report.table())
    return 0


def _torch_version(python: str) -> str:
    code = "import torch; print(torch.__version__)"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
