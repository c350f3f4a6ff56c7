"""Where the repository and the work folder are."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder for everything a run writes: `LABS_HOME`, or `work/` in the repository."""
    return Path(os.environ.get("LABS_HOME") or ROOT / "work").expanduser().resolve()
