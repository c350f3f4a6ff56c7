"""What all measurements share: workers that take turns, medians with their spread, ratios."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class WorkerError(RuntimeError):
    """A worker ended before it answered; the message holds the end of what it said."""


class Worker:
    """A process that prepares one training and then times a turn of it whenever it is asked.

    Contestants that share no process cannot disturb each other's settings; turn by turn (A B A B
    …) both meet the same moods of the machine.
    """

    def __init__(self, command: list[str], log: Path, **environment: str):
        self.log = log
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=os.environ | environment,
            )
        try:
            self.about = self._answer()
        except WorkerError:
            self.close()
            raise

    def turn(self) -> float:
        """Return the seconds of one step, from one turn of several steps."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _answer(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries may print what they like
                return json.loads(line)
        end = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise WorkerError(" ".join(end) or "the worker ended without a word")


def serve(step: Callable[[], float], **about: object) -> None:
    """Be a worker: say what was prepared, then answer every line with the seconds of one step."""
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": step()}), flush=True)


def take_turns(contestants: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant, measured in turns; the first round does not count.

    Every second round goes backwards, so that nobody always follows the same one.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(repeats + 1):
        order = list(contestants) if number % 2 else list(reversed(contestants))
        for name in order:
            seconds = contestants[name]()
            if number:
                found[name].append(seconds)
    return found


def ratio(slow: list[float], fast: list[float]) -> dict:
    """Return how many times as long `slow` took, pair by pair: median, smallest, largest."""
    return summary([a / b for a, b in zip(slow, fast, strict=True)])


def summary(values: list[float]) -> dict:
    """Return the median of values, the smallest, the largest and how many there are."""
    return {
        "value": float(statistics.median(values)),
        "low": float(min(values)),
        "high": float(max(values)),
        "repeats": len(values),
    }


def noise(values: list[float]) -> float:
    """Return the spread of repeated times: standard deviation as a share of the mean."""
    return statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 else 0.0


def timed(function: Callable[[], object], times: int = 1) -> float:
    """Return the mean seconds of `times` calls."""
    begin = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - begin) / times


@contextlib.contextmanager
def closing(*workers: Worker) -> Iterator[None]:
    """End the workers whatever happens."""
    try:
        yield
    finally:
        for worker in workers:
            worker.close()
