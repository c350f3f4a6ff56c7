"""From `benchmarks/results.json` to the table of the README; loads without TensorFlow."""

import json
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results.json"
MISSING = "not measured"


@dataclass(frozen=True)
class Row:
    """One measured ratio: its key in the results, what it is, and what it should be."""

    key: str
    title: str
    target: float
    at_least: bool
    percent: bool = False
    only_with_bfloat16: bool = False  # elsewhere the number is given, but nothing is demanded

    def text(self, number: float) -> str:
        """Return a number with the unit of this row."""
        return self.plain(number) + (" %" if self.percent else " ×")

    def plain(self, number: float) -> str:
        """Return a number without its unit."""
        return f"{100 * number:.1f}" if self.percent else f"{number:.2f}"

    def met(self, number: float) -> bool:
        """Return whether a number reaches the target."""
        return number >= self.target if self.at_least else number <= self.target


ROWS = (
    Row(
        "step_against_keras",
        "(a) training step of lab 4's network, batch of 64: Keras' default takes … times as long",
        2.2,
        True,
        only_with_bfloat16=True,
    ),
    Row(
        "step_against_torch", "(a) the same step: PyTorch's best takes … times as long", 0.95, True
    ),
    Row(
        "share_of_ceiling",
        "(b) share of the machine's convolution ceiling that a step of the fast network reaches",
        0.45,
        True,
        percent=True,
    ),
    Row(
        "augmentation",
        "(c) augmentation by the batch: image by image takes … times as long",
        1.6,
        True,
    ),
    Row("waiting", "(d) share of an epoch spent waiting for input", 0.05, False, percent=True),
    Row(
        "time_to_book_best",
        "(e) seconds to the book's best result, as a share of its own recipe's",
        1 / 20,
        False,
        percent=True,
    ),
)
NUMERICS = {"default": "all instructions", "AVX2": "`ONEDNN_MAX_CPU_ISA=AVX2`"}


def load(file: Path = RESULTS) -> dict:
    """Return the committed results, or an empty dict."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def table(results: dict | None = None) -> str:
    """Return the table: one row a ratio, one column an instruction set, and what was measured."""
    results = load() if results is None else results
    parts = results.get("parts", {})
    heads = [
        f"{NUMERICS[name]}, {part['machine']['policy']}" if part else NUMERICS[name]
        for name, part in ((name, parts.get(name)) for name in NUMERICS)
    ]
    lines = [
        "| measured | target | " + " | ".join(heads) + " |",
        "|" + "---|" * (2 + len(heads)),
    ]
    for row in ROWS:
        found = [cell(row, parts.get(name, {})) for name in NUMERICS]
        sign = "≥" if row.at_least else "≤"
        lines.append(f"| {row.title} | {sign} {row.text(row.target)} | " + " | ".join(found) + " |")
    return "\n".join([*lines, "", footer(results)])


def cell(row: Row, part: dict) -> str:
    """Return what stands in one place of the table: number, range, and whether it is enough."""
    found = part.get(row.key, {})
    if "value" not in found:
        return MISSING + (f" ({found['why']})" if found.get("why") else "")
    spread = f" ({row.plain(found['low'])} to {row.plain(found['high'])})" if "low" in found else ""
    if row.only_with_bfloat16 and not part["machine"]["policy"].endswith("bfloat16"):
        return f"{row.text(found['value'])}{spread}"
    met = row.met(found["value"])
    if row.key == "augmentation":
        met = met and found["same_distribution"]
    return f"{'**' if met else ''}{row.text(found['value'])}{'**' if met else ''}{spread}" + (
        "" if met else ", missed"
    )


def footer(results: dict) -> str:
    """Return one paragraph: machine, versions, date, noise, and what the numbers mean."""
    if not results:
        return f"{MISSING}: run `python -m benchmarks`."
    about = next(iter(results["parts"].values()))["machine"]
    machine, versions = about["machine"], about["versions"]
    torch = results.get("torch")
    noise = max(part.get("noise", 0.0) for part in results["parts"].values())
    names = f"TensorFlow {versions['tensorflow']}, Keras {versions['keras']}" + (
        f", PyTorch {torch}" if torch else ""
    )
    return (
        f"Medians of alternating repeats, smallest to largest in brackets; bold: target reached. "
        f"{machine['processor']}, {machine['cores']} cores, {names}, {results['date']}; repeated "
        f"times differed by {100 * noise:.1f} % (standard deviation)."
    )
