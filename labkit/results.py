"""Results that are kept, and the ranges they must stay in; loads without TensorFlow."""

import hashlib
import json
import math
import os
import tomllib
from pathlib import Path

from labkit import data
from labkit.paths import ROOT

PROFILES = ("quick", "standard", "full")
RESULTS = ROOT / "labs" / "results"
BARS = ROOT / "labs" / "bars.toml"
BOOK = ROOT / "labs" / "book.toml"


def committed(lab: str, profile: str) -> dict:
    """Return the committed result of a lab and profile, or an empty dict."""
    file = RESULTS / f"{lab}.{profile}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def book(lab: str) -> dict[str, float]:
    """Return what the book printed for a lab, by the name of our metric."""
    return tomllib.loads(BOOK.read_text(encoding="utf-8")).get(lab, {})


def study(name: str) -> list[dict]:
    """Return the rows of a committed study, of none an empty list.

    A row has `settings` and `metrics`, and says how it was measured. What reads a study depends on
    it: its hash is noted among the data used.
    """
    file = study_file(name)
    if not file.exists():
        return []
    content = file.read_bytes()
    data.note(f"studies/{name}.json", hashlib.sha256(content).hexdigest())
    return json.loads(content)["rows"]


def study_file(name: str) -> Path:
    """Return where the rows of a study are kept."""
    return RESULTS / "studies" / f"{name}.json"


def strict() -> bool:
    """Return whether a metric outside its bars is an error: under CI, nbval, `course.py run`."""
    return any(map(switched_on, ("LABS_STRICT", "CI", "PYTEST_CURRENT_TEST")))


def rendering() -> bool:
    """Return whether a tool runs this notebook, whose page others will read."""
    return bool(os.environ.get("LABS_SOURCE_SHA256"))


def switched_on(name: str) -> bool:
    """Return whether an environment variable is set to anything but nothing, 0 or false."""
    return os.environ.get(name, "").lower() not in ("", "0", "false")


def main_metric(lab: str) -> str | None:
    """Return the name of the metric that stands for a lab in one line: `main` in the bars file."""
    return _bars_file().get(lab, {}).get("main")


def bars(lab: str, profile: str, numerics: str = "float32") -> dict[str, dict]:
    """Return the accepted range of each metric: `{metric: {"min": …, "max": …, "seeds": …}}`."""
    found = _bars_file().get(lab, {}).get(profile, {})
    own = found.get(numerics, {})
    return {name: bar for name, bar in (found | own).items() if {"min", "max"} & set(bar)}


def _bars_file() -> dict:
    return tomllib.loads(BARS.read_text(encoding="utf-8")) if BARS.exists() else {}


def misses(result: dict, accepted: dict[str, dict]) -> list[str]:
    """Return one sentence for each metric of a result that is missing or outside its range."""
    sentences = []
    for name, bar in accepted.items():
        value = number(result["metrics"].get(name))
        low, high = bar.get("min", -math.inf), bar.get("max", math.inf)
        if value is None:
            sentences.append(f"{name} was not recorded")
        elif not low <= value <= high:
            sentences.append(f"{name} = {value:.4g}, accepted {low:.4g} to {high:.4g}")
    return sentences


def number(value: float | dict | None) -> float | None:
    """Return a metric as one number: of several seeds or splits, their mean."""
    return value["value"] if isinstance(value, dict) else value


def text(value: float | dict | None) -> str:
    """Return a metric as text; `±` is the standard deviation between seeds or splits."""
    if value is None:
        return "–"
    spread = f" ± {value['spread']:.2g}" if isinstance(value, dict) else ""
    return f"{number(value):.4g}{spread}"
