"""Execute labs in fresh kernels: one line a lab, then the table of all metrics and their bars."""

import argparse
import sys

from labkit.results import PROFILES, bars, number, text
from tools import cells
from tools.build import generate
from tools.execute import Outcome, execute


def table(outcome: Outcome) -> str:
    """Return one line a metric: value, spread, accepted range."""
    accepted = bars(outcome.lab, outcome.result["profile"], outcome.result["numerics"])
    lines = [f"{'metric':34} {'value':>10} {'spread':>9} {'min':>9} {'max':>9}"]
    for name, value in outcome.result["metrics"].items():
        numbers = [number(value), value["spread"] if isinstance(value, dict) else None]
        numbers += [accepted.get(name, {}).get(side) for side in ("min", "max")]
        texts = [text(n) for n in numbers]
        lines.append(f"{name:34} {texts[0]:>10} {texts[1]:>9} {texts[2]:>9} {texts[3]:>9}")
    return "\n".join(lines)


def main() -> int:
    """Run the named labs, or all; 0 when every one stays within its bars."""
    parser = argparse.ArgumentParser(prog="course.py run", description=__doc__)
    parser.add_argument("labs", nargs="*", help="numbers or names, such as 02; all when left out")
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    arguments = parser.parse_args()
    outcomes = []
    try:
        names = cells.labs(*arguments.labs)
    except ValueError as error:
        parser.error(str(error))
    for lab in names:
        print(f"{lab:24} …", end="\r", flush=True)
        try:
            outcomes.append(execute(lab, generate(lab), arguments.profile))
        except KeyboardInterrupt:
            print(f"\n{lab}: interrupted. The same command goes on where its training stopped.")
            return 130
        print(outcomes[-1].line(), flush=True)
    for outcome in outcomes:
        print(f"\n{outcome.lab} · {arguments.profile}")
        print(outcome.error or table(outcome))
    return any(outcome.error for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
