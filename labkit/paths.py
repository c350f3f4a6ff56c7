"""Where the repository and the work folder are, and how a file is written whole or not at all."""

import contextlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return the folder for everything a run writes: `LABS_HOME`, or `work/` in the repository."""
    return Path(os.environ.get("LABS_HOME") or ROOT / "work").expanduser().resolve()


def write(path: Path, content: bytes) -> None:
    """Write a file, and its folder, so that it is there whole or as it was before.

    Raises `OSError`; of a file in the work folder it says how another one is chosen.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        inside = path.is_relative_to(home())
        advice = "; set LABS_HOME to a folder that can be written" if inside else ""
        raise OSError(error.errno, f"{error.strerror}{advice}", str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
