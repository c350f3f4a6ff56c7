"""Copy the labs to the work folder, so that a student never changes the repository.

`python -m tools.workcopy` copies `labs/*.ipynb` to `work/labs/`. What a student changed is never
overwritten: a newer version of such a lab is laid beside it.
"""

import hashlib
import json
import shutil
from pathlib import Path

from labkit.paths import ROOT, home, write


def update(source: Path, target: Path) -> list[str]:
    """Bring the copies in `target` up to date with the notebooks in `source`; say what was done.

    `target/.copied.json` holds the hash of the version of each lab that was offered last. An
    interrupted call is completed by the next one. Raises OSError when `target` cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    record = target / ".copied.json"
    offered = _read(record)
    lines = []
    for lab in sorted(source.glob("*.ipynb")):
        content = lab.read_bytes()
        version = hashlib.sha256(content).hexdigest()
        place = _place(target / lab.name, version, offered.get(lab.name))
        if place:
            write(place, content)
            kept = "" if place.name == lab.name else f"; your changed {lab.name} stays as it is"
            lines.append(f"New: {place.name}{kept}")
        offered[lab.name] = version
    write(record, json.dumps(offered, indent=1).encode())
    if (source / "images").exists():  # pictures that the labs' text shows
        shutil.copytree(source / "images", target / "images", dirs_exist_ok=True)
    return lines


def _place(copy: Path, version: str, last: str | None) -> Path | None:
    """Return where to put this version of a lab: its name, a name beside it, or nowhere."""
    if not copy.exists():
        return copy
    present = hashlib.sha256(copy.read_bytes()).hexdigest()
    if version in (present, last):
        return None
    if present == last:  # as it was copied: nothing of the student's is in it
        return copy
    beside = copy.with_name(f"{copy.stem}.new-{version[:8]}.ipynb")
    return None if beside.exists() else beside


def _read(record: Path) -> dict[str, str]:
    """Return the record; an empty one when there is none, or none that can be read."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


if __name__ == "__main__":
    folder = home() / "labs"
    for line in update(ROOT / "labs", folder):
        print(line)
    print(f"Your copies of the labs are in {folder}")
