"""Write `labs/bars.toml`, the accepted range of every metric, from runs over seeds.

`quick`: mean ± 4 standard deviations over the seeds, the deviation being at least `FLOOR` of the
mean, in float32; for other `--numerics` in a section of its own. `standard` and `full`: from the
committed result, on the bad side of each metric only, `--margin` (a share of the value) or two
spreads away, whichever is more, but not beyond the book's number where the run beats it; with
`--seeds` from the mean of so many runs, of which the committed one is the first, and at least 4
standard deviations away. The smaller value is the better one but for names that begin as
`BETTER_HIGH`. A time or a speed (`SPEED`) has no range: it says as much of the machine as of the
lab. The key `main` of a lab, set by hand, is kept.
"""

import argparse
import contextlib
import os
import re
import statistics
import sys
from collections.abc import Iterable, Iterator

from labkit.paths import write
from labkit.results import BARS, PROFILES, book, committed, number
from tools import build, cells, readme
from tools.execute import execute

import tomlkit

FLOOR = 0.01  # no run is trusted to be more constant than this share of its mean
AGREE = 0.02  # so much may two networks differ that are the same on paper: `…_difference`
DISTANCES = ("gain", "minus", "advantage", "calibration_error")  # of accuracies, losses, confidence
SPEED = ("seconds", "images_per_second", "share_of_ceiling")
BETTER_HIGH = (
    "accuracy", "flowers_accuracy", "cnn_minus_dense", "gap_closed", "inside_vae_minus_ae",
    "knn_accuracy", "map_50", "ap_50", "live_advantage", "shortcut_gain", "depth_gain_resnet",
    "top_probability",
)  # fmt: skip


def values(lab: str, profile: str, seeds: Iterable[int]) -> dict[str, list[float]]:
    """Return the values of every metric over seeds.

    The result of seed 0 is kept. Raises `RuntimeError` when a run fails.
    """
    found: dict[str, list[float]] = {}
    for seed in seeds:
        outcome = execute(lab, build.generate(lab), profile, seed)
        if seed == 0:
            outcome.keep()
        if outcome.error:
            raise RuntimeError(f"{lab}, seed {seed}: {outcome.error}")
        for name, value in outcome.result["metrics"].items():
            found.setdefault(name, []).append(number(value))
        print(f"{lab} seed {seed}: {outcome.result['seconds']:.0f} s", flush=True)
    for name, numbers in found.items():
        print(f"{name}: {' '.join(f'{value:.4g}' for value in numbers)}")
    return found


def spread_bars(runs: dict[str, list[float]]) -> dict[str, dict]:
    """Return mean ± 4 standard deviations for each metric."""
    bars = {}
    for name, numbers in _without_speed(runs).items():
        mean = statistics.fmean(numbers)
        deviation = max(statistics.stdev(numbers), FLOOR * abs(mean), 1e-6)
        low, high = mean - 4 * deviation, mean + 4 * deviation
        bars[name] = {"min": _round(low), "max": _round(high), "seeds": len(numbers)}
    return bars


def margin_bars(result: dict, margin: float, more: dict[str, list[float]]) -> dict[str, dict]:
    """Return a one-sided bar for each metric of a result, on its bad side.

    The margin is a share of the value. Of a single training's number that says how far apart two
    accuracies are, it is a share of 1: that number may move as far as they do. `more` are the
    metric's values in runs with other seeds. Where the mean of the runs beats the book's number,
    the range reaches to that and no further.
    """
    bars, printed = {}, book(result["lab"])
    for name, value in _without_speed(result["metrics"]).items():
        if name.endswith("_difference"):
            bars[name] = {"max": AGREE, "seeds": 1}
            continue
        spread, inside = (value["spread"], value["seeds"]) if isinstance(value, dict) else (0.0, 1)
        runs = [number(value), *more.get(name, [])]
        mean, seeds = statistics.fmean(runs), inside if inside > 1 else len(runs)
        apart = seeds == 1 and any(word in name for word in DISTANCES)
        slack = max(margin * (1 if apart else abs(mean)), 2 * spread)
        slack = max(slack, 4 * statistics.stdev(runs)) if len(runs) > 1 else slack
        side, sign = ("min", -1) if name.startswith(BETTER_HIGH) else ("max", 1)
        limit = _round(mean + sign * slack)
        if sign * (printed.get(name, limit) - mean) > 0:
            limit = sign * min(sign * limit, sign * printed.get(name, limit))
        bars[name] = {side: limit, "seeds": seeds}
    return bars


def replace(lab: str, section: list[str], bars: dict[str, dict]) -> None:
    """Replace one section, such as `["quick"]`, of the bars file, and nothing nested in it."""
    text = BARS.read_text(encoding="utf-8") if BARS.exists() else ""
    document = tomlkit.parse(text)
    table = document.setdefault(lab, tomlkit.table())
    for key in section[:-1]:
        table = table.setdefault(key, tomlkit.table())
    old = table.get(section[-1], {})
    nested = {k: v for k, v in old.items() if not {"min", "max"} & set(v)}
    table[section[-1]] = tomlkit.table()
    for name, bar in bars.items():
        row = tomlkit.inline_table()
        row.update(bar)
        table[section[-1]][name] = row
    table[section[-1]].update(nested)
    write(BARS, re.sub(r"(?<!\n)\n\[", "\n\n[", tomlkit.dumps(document)).encode())


@contextlib.contextmanager
def without(lab: str, section: list[str]) -> Iterator[None]:
    """Take a section's ranges away meanwhile: they must not stop the runs that make new ones."""
    before = BARS.read_bytes()
    replace(lab, section, {})
    try:
        yield
    finally:
        write(BARS, before)


def _without_speed(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if not name.startswith(SPEED)}


def _round(number: float) -> float:
    return float(f"{number:.4g}")


def main() -> int:
    """Measure and write the bars of the named labs."""
    parser = argparse.ArgumentParser(prog="python -m tools.bars", description=__doc__)
    parser.add_argument("labs", nargs="+")
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--seeds", type=int, help="runs; 10 for quick, else the committed one")
    parser.add_argument("--numerics", default="float32", help="for quick: a Keras dtype policy")
    parser.add_argument("--margin", type=float, default=0.03, help="for standard and full")
    arguments = parser.parse_args()
    quick = arguments.profile == "quick"
    seeds = arguments.seeds or (10 if quick else 1)
    section = [arguments.profile]
    if quick:
        os.environ["LABS_NUMERICS"] = arguments.numerics
        section += [arguments.numerics] if arguments.numerics != "float32" else []
    for lab in cells.labs(*arguments.labs):
        with without(lab, section):
            runs = values(lab, arguments.profile, range(0 if quick else 1, seeds))
        result = committed(lab, arguments.profile)
        bars = spread_bars(runs) if quick else margin_bars(result, arguments.margin, runs)
        replace(lab, section, bars)
        build.write(lab)
    readme.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
