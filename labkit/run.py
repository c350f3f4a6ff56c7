"""The frame around a lab: profile, seed, numerics, resumable training, metrics and their bars."""

import contextlib
import datetime
import gc
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from labkit import machine
from labkit.data import used
from labkit.exercise import Exercise
from labkit.paths import ROOT, home, write
from labkit.results import PROFILES, bars, book, committed, misses, rendering, strict, text
from labkit.resume import Resume, data_sha256, targets_of

import keras
import numpy as np
import pandas as pd
import psutil
import tensorflow as tf

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
_iterate = tf.data.Dataset.__iter__


def start(lab: str, seed: int | None = None) -> "Run":
    """Begin lab `lab`: seed everything, prepare the GPU, print one status line.

    The environment decides what the code does not: `LABS_PROFILE` (`quick`, `standard`, `full`),
    `LABS_SEED`, `LABS_NUMERICS` (a Keras dtype policy for `fast()`), `LABS_HOME` (work folder).
    Raises `ValueError` for a setting that is none, `OSError` for a work folder that cannot be
    written.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # the GPU is in use already: a second start()
            tf.config.experimental.set_memory_growth(gpu, True)
    wanted = _setting("LABS_SEED", "0", str.isdecimal, "write a whole number, 0 or more")
    seed = int(wanted) if seed is None else seed
    choice = f"choose one of {', '.join(PROFILES)}"
    profile = _setting("LABS_PROFILE", "quick", PROFILES.__contains__, choice)
    run = Run(lab, profile, seed)
    # Rewriting a graph or a pipeline takes longer than the few steps of `quick` gain by it.
    short = profile == "quick" and run.device == "CPU"
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": short})
    options = _pipeline_options(rewrite=not short)
    tf.data.Dataset.__iter__ = lambda dataset: _iterate(dataset.with_options(options))
    gc.freeze()  # the libraries' objects stay: the collector need not go through them again
    keras.utils.set_random_seed(seed)
    tf.get_logger().addFilter(_is_news)
    print(run.status())
    return run


def _setting(name: str, default: str, right: Callable[[str], bool], advice: str) -> str:
    """Return an environment variable; `ValueError` with `advice` if its value is not right."""
    value = os.environ.get(name) or default
    if not right(value):
        raise ValueError(f"{name} is {value!r}; {advice}")
    return value


def _pipeline_options(rewrite: bool) -> tf.data.Options:
    """Return options without tf.data's tuner, which makes the end of a pipeline wait.

    An iterator that is deleted (in `fit` one for each epoch) joins the tuner's thread. In
    TensorFlow 2.21 that thread may stay asleep, for up to a minute, while nothing else runs.
    `AUTOTUNE` still means parallel and ahead of time, with as many threads as TensorFlow has.
    `rewrite`: whether TensorFlow may rewrite a pipeline before it runs, unless its maker said no,
    as Keras does for arrays.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    if not rewrite:
        options.experimental_optimization.apply_default_optimizations = False
    return options


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a warning is news: every new model is traced, and TensorFlow wonders why."""
    return "triggered tf.function retracing" not in str(record.msg)


class Run:
    """One run of one lab; see `start`."""

    def __init__(self, lab: str, profile: str, seed: int):
        self.lab, self.profile, self.seed = lab, profile, seed
        self.numerics = "float32"
        self.metrics: dict[str, float | dict] = {}
        self.speed = machine.probe()
        fastest = max(self.speed, key=self.speed.get)
        advice = f"choose one of {', '.join(POLICIES)}"
        self.fast_policy = _setting("LABS_NUMERICS", fastest, POLICIES.__contains__, advice)
        self.device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        self.jit_compile = (
            "auto" if self.device == "GPU" else False
        )  # XLA slows convolutions on CPU
        self._trainings: list[Resume] = []

    # --- sizes and numerics ---

    def scale(self, **values):
        """Return the value of the present profile: `scale(quick=2, standard=20, full=100)`.

        Raises `ValueError` unless every profile has a value.
        """
        if set(values) != set(PROFILES):
            raise ValueError(
                f"scale() takes exactly {', '.join(PROFILES)}; got {', '.join(values)}"
            )
        return values[self.profile]

    @contextlib.contextmanager
    def fast(self):
        """Build models inside in the dtype policy that this machine trains fastest with.

        A classifier's last layer needs `dtype="float32"`, for a softmax that is exact enough.
        """
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.fast_policy)
        self.numerics = self.fast_policy
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)

    def status(self) -> str:
        """Return one line: lab, profile, device, numerics, time this machine will take."""
        parts = [self.lab, self.profile, self.device, f"fast: {self.fast_policy}"]
        if not rendering():
            parts.append(self._estimate())
        return " · ".join(parts)

    def _estimate(self) -> str:
        """Return the committed seconds, scaled by how fast this machine's convolution is."""
        reference = committed(self.lab, self.profile)
        speed = reference.get("machine", {}).get("gflops")
        if not speed:
            return "time not measured yet"
        here = self.speed.get(reference["numerics"], max(self.speed.values()))
        minutes = reference["seconds"] * speed / here / 60
        return (
            f"about {minutes:.0f} min here"
            if minutes >= 1.5
            else f"about {minutes * 60:.0f} s here"
        )

    # --- training that can be stopped ---

    def callbacks(self, name: str, *more: keras.callbacks.Callback, data: object = None) -> list:
        """Return `more`, TensorBoard and `Resume` for `fit`; `name` must be new for each model.

        The name is that of a file, and of a folder of logs, which a new training begins empty.

        `data` is what the model is trained on: arrays and texts count by value, a `tf.data.Dataset`
        by shape and length (add `inspect.getsource(function)` where its code matters). A training
        that was killed goes on; a changed one starts afresh, so build, compile and fit a model in
        one cell. The order is fixed: `Resume` must see the other callbacks' state of each epoch.
        Raises `ValueError` for a name with characters that are none of a file's name.
        """
        context = [self.lab, self.profile, self.seed, self.numerics, data_sha256(data), used()]
        context += [machine.versions(), os.environ.get("LABS_SOURCE_SHA256")]
        resume = Resume(self._state(name), list(more), context, targets_of(data))
        if not resume.file.exists():
            shutil.rmtree(self.log_dir / name, ignore_errors=True)
        self._trainings.append(resume)
        board = keras.callbacks.TensorBoard(self.log_dir / name, write_graph=False)
        return [*more, board, resume]

    def forget(self, *names: str) -> None:
        """Forget the trainings of these names (of all, without one): the next starts afresh."""
        files = [self._state(name) for name in names] or self._trainings_kept.glob("*.npz")
        for file in files:
            file.unlink(missing_ok=True)

    def forget_finished(self) -> None:
        """Forget the trainings of this run: their results are kept elsewhere by now."""
        for training in self._trainings:
            training.file.unlink(missing_ok=True)

    def tensorboard(self) -> None:
        """Open TensorBoard on this lab's logs below the cell; in strict mode only say how."""
        inside = self.log_dir.is_relative_to(ROOT)
        shown = self.log_dir.relative_to(ROOT) if inside else self.log_dir
        print(f'In a terminal: tensorboard --logdir "{shown.as_posix()}"')
        if not strict():
            from tensorboard import notebook

            program = Path(sys.executable).with_name("tensorboard")
            if program.exists():  # a kernel's PATH need not have it
                os.environ.setdefault("TENSORBOARD_BINARY", str(program))
            notebook.start(f'--logdir "{self.log_dir.as_posix()}" --port 0')

    @property
    def log_dir(self) -> Path:
        """The folder of this lab's TensorBoard logs."""
        return home() / "logs" / self.lab

    @property
    def _trainings_kept(self) -> Path:
        return home() / "trainings" / f"{self.lab}.{self.profile}"

    def _state(self, name: str) -> Path:
        if re.search(r'[\\/:*?"<>|\[\]]', name) or not name.strip(". "):
            raise ValueError(f"a training cannot be called {name!r}: use letters, digits, - and _")
        return self._trainings_kept / f"{name}.npz"

    # --- exercises ---

    def exercise(self, *attempts) -> Exercise:
        """Return the checker of an exercise: `with run.exercise(my_function) as check: …`."""
        return Exercise(*attempts)

    # --- metrics and bars ---

    def record(self, **metrics: float | Sequence[float]) -> None:
        """Record metrics: one number, or several of which mean, spread and count are kept.

        The spread of several seeds or splits is their standard deviation (n − 1). Raises
        `ValueError` for a number that is not finite, and for none at all.
        """
        for name, value in metrics.items():
            values = np.asarray(value, dtype="float64")
            if not (values.size and np.isfinite(values).all()):
                raise ValueError(f"metric {name} is not finite: {value}")
            spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
            several = {"value": float(values.mean()), "spread": spread, "seeds": values.size}
            self.metrics[name] = several if values.ndim else float(values)

    @property
    def book(self) -> dict[str, float]:
        """What the book printed, by the name of our metric."""
        return book(self.lab)

    def table(self) -> pd.DataFrame:
        """Return metrics as a table: the book, the committed `standard` run, this run."""
        standard = committed(self.lab, "standard").get("metrics", {})
        this = f"this run ({self.profile})"
        columns = {"book": book(self.lab), "standard run": standard, this: self.metrics}
        if self.profile == "standard":
            del columns["standard run"]  # it is this run
        rows = {
            name: {title: text(values.get(name)) for title, values in columns.items()}
            for name in self.metrics
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def check(self) -> None:
        """Compare the metrics with `labs/bars.toml`, and keep the result in the work folder.

        Outside its range a metric raises `AssertionError` in strict mode (CI, nbval, `course.py
        run`); a student is told, and nothing stops. Trainings kept for resuming are forgotten, but
        for those of a result that was refused.
        """
        result = self.result()
        file = home() / "results" / f"{self.lab}.{self.profile}.json"
        write(file, f"{json.dumps(result, indent=1)}\n".encode())
        accepted = bars(self.lab, self.profile, self.numerics)
        outside = misses(result, accepted)
        if outside and strict():
            raise AssertionError("outside the bars of labs/bars.toml: " + "; ".join(outside))
        self.forget_finished()
        for miss in outside:
            print(f"Not as in the reference run: {miss}. Did you change something? That is fine.")
        if not accepted:
            print(f"No accepted ranges are known for {self.lab} in {self.profile}.")
        elif not outside:
            print(f"All metrics of {self.lab} are within their bars.")

    def result(self) -> dict:
        """Return what a result file holds: the metrics and how they were measured."""
        process = psutil.Process()
        resumed = sum(training.resumed_seconds for training in self._trainings)
        now = datetime.datetime.now(datetime.UTC)
        return {
            "lab": self.lab,
            "profile": self.profile,
            "numerics": self.numerics,
            "device": self.device,
            "seed": self.seed,
            "metrics": self.metrics,
            "seconds": round(now.timestamp() - process.create_time() + resumed, 1),
            "peak_memory_mb": round(_peak_bytes(process) / 1e6),
            "machine": machine.describe()
            | {"gflops": self.speed.get(self.numerics, max(self.speed.values()))},
            "versions": machine.versions(),
            "data": used(),
            "source_sha256": os.environ.get("LABS_SOURCE_SHA256"),
            "date": now.date().isoformat(),
        }


def _peak_bytes(process: psutil.Process) -> int:
    """Return the largest memory that this process has held, in bytes."""
    if sys.platform == "win32":
        return process.memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
