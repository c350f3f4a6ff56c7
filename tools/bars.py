"""Write `labs/bars.toml`, the accepted range of every metric, from runs over seeds.

`quick`: mean ± 4 standard deviations over the seeds, the deviation being at least `FLOOR` of the
mean. `standard`: from the committed result, one-sided, `--margin` away (in shares of the value).
"""

import argparse
import statistics
import sys

from labkit.results import BARS, PROFILES, committed
from tools import cells
from tools.build import generate
from tools.execute import execute

import tomlkit

FLOOR = 0.01  # no run is trusted to be more constant than this share of its mean
BETTER_HIGH = ("accuracy",)  # beginnings of names; of all others the smaller value is the better


def values(lab: str, profile: str, seeds: int) -> dict[str, list[float]]:
    """Return the values of every metric of a lab over seeds 0, 1, …; raise when one run fails."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        outcome = execute(lab, generate(lab), profile, seed)
        if seed == 0:
            outcome.keep()
        if outcome.error:
            raise RuntimeError(f"{lab}, seed {seed}: {outcome.error}")
        for name, value in outcome.result["metrics"].items():
            found.setdefault(name, []).append(value["value"] if isinstance(value, dict) else value)
        print(f"{lab} seed {seed}: {outcome.result['seconds']:.0f} s", flush=True)
    return found


def spread_bars(runs: dict[str, list[float]]) -> dict[str, dict]:
    """Return mean ± 4 standard deviations for each metric."""
    bars = {}
    for name, numbers in runs.items():
        mean = statistics.fmean(numbers)
        deviation = max(statistics.stdev(numbers), FLOOR * abs(mean))
        low, high = mean - 4 * deviation, mean + 4 * deviation
        bars[name] = {"min": _round(low), "max": _round(high), "seeds": len(numbers)}
    return bars


def margin_bars(result: dict, margin: float) -> dict[str, dict]:
    """Return a one-sided bar for each metric of a result, on its bad side."""
    bars = {}
    for name, value in result["metrics"].items():
        seeds = value["seeds"] if isinstance(value, dict) else 1
        value = value["value"] if isinstance(value, dict) else value
        side, sign = ("min", -1) if name.startswith(BETTER_HIGH) else ("max", 1)
        bars[name] = {side: _round(value + sign * margin * abs(value)), "seeds": seeds}
    return bars


def write(lab: str, section: list[str], bars: dict[str, dict]) -> None:
    """Replace one section, such as `["quick"]`, of the bars file."""
    document = (
        tomlkit.parse(BARS.read_text(encoding="utf-8")) if BARS.exists() else tomlkit.document()
    )
    table = document.setdefault(lab, tomlkit.table(is_super_table=True))
    for key in section[:-1]:
        table = table.setdefault(key, tomlkit.table())
    table[section[-1]] = tomlkit.table()
    for name, bar in bars.items():
        row = tomlkit.inline_table()
        row.update(bar)
        table[section[-1]][name] = row
    BARS.write_text(tomlkit.dumps(document), encoding="utf-8", newline="\n")


def _round(number: float) -> float:
    return float(f"{number:.4g}")


def main() -> int:
    """Measure and write the bars of the named labs."""
    parser = argparse.ArgumentParser(prog="python -m tools.bars", description=__doc__)
    parser.add_argument("labs", nargs="+")
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--seeds", type=int, default=10, help="for quick")
    parser.add_argument("--margin", type=float, default=0.03, help="for standard and full")
    arguments = parser.parse_args()
    for lab in cells.labs(*arguments.labs):
        if arguments.profile == "quick":
            write(lab, ["quick"], {})  # the old ranges must not stop the runs that make new ones
            bars = spread_bars(values(lab, "quick", arguments.seeds))
        else:
            bars = margin_bars(committed(lab, arguments.profile), arguments.margin)
        write(lab, [arguments.profile], bars)
    return 0


if __name__ == "__main__":
    sys.exit(main())
