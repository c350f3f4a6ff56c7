"""Run a notebook from top to bottom in a fresh kernel, in strict mode."""

import json
import os
from dataclasses import dataclass

from labkit.paths import home, write
from labkit.results import RESULTS, bars, main_metric, number
from tools import build, cells

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError


@dataclass
class Outcome:
    """What came of one execution: the notebook with its outputs, the result file, the error."""

    lab: str
    notebook: nbformat.NotebookNode
    result: dict
    error: str

    def line(self) -> str:
        """Return one line: name, seconds, the lab's main metric against its range."""
        if self.error:
            return f"{self.lab:24} FAILED: {self.error.splitlines()[0]}"
        accepted = bars(self.lab, self.result["profile"], self.result["numerics"])
        name = main_metric(self.lab) or next(iter(self.result["metrics"]))
        value = number(self.result["metrics"][name])
        bar = accepted.get(name, {})
        limits = f"{bar.get('min', float('-inf')):.4g} to {bar.get('max', float('inf')):.4g}"
        return f"{self.lab:24} {self.result['seconds']:6.0f} s   {name} {value:.4g} ({limits})"

    def keep(self) -> None:
        """Write the result to `labs/results/`; raise `RuntimeError` when the run failed."""
        if self.error:
            raise RuntimeError(f"{self.lab}: nothing was written. {self.error}")
        file = RESULTS / f"{self.lab}.{self.result['profile']}.json"
        write(file, f"{json.dumps(self.result, indent=1)}\n".encode())


def execute(lab: str, notebook: nbformat.NotebookNode, profile: str, seed: int = 0) -> Outcome:
    """Execute a notebook of `lab` in place; a failure is returned, not raised.

    Interrupting it raises `KeyboardInterrupt`.
    """
    env = {
        "LABS_PROFILE": profile,
        "LABS_SEED": str(seed),
        "LABS_STRICT": "1",
        "LABS_SOURCE_SHA256": build.source_sha256(lab, profile),
        "LABS_HOME": str(home()),  # the kernel starts in another folder
    }
    file = home() / "results" / f"{lab}.{profile}.json"
    file.unlink(missing_ok=True)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": cells.LABS}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    error = ""
    try:
        client.execute(env={**os.environ, **env})
    except AssertionError:  # what nbclient raises when it is interrupted
        raise KeyboardInterrupt from None
    except (CellExecutionError, CellTimeoutError, RuntimeError) as failure:  # or a dead kernel
        error = getattr(failure, "evalue", "") or str(failure)
        error = f"{getattr(failure, 'ename', type(failure).__name__)}: {error}"
    if not error and not file.exists():
        error = "the last cell must call run.check()"
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return Outcome(lab, notebook, result, error)
