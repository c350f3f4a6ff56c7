"""Files that are made here, of originals each of which is checked against a list.

A photo that is made smaller here may differ by a bit from one that was made smaller elsewhere, so
the archive of all of them cannot have a hash that is known beforehand. Its originals can: a list
in `datasets/originals` gives size and SHA-256 of each. A note beside the made file holds its own
hash, so that later damage is noticed, and that of the list.
"""

import csv
import hashlib
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import quote

from labkit import fetch
from labkit.paths import write

import pooch
import requests
import urllib3
from tqdm import tqdm


class Original(NamedTuple):
    """A line of a list: name in the made file, path at the source, size, SHA-256."""

    member: str
    path: str
    bytes: int
    sha256: str


class Note(NamedTuple):
    """What is known of a made file: its size, its SHA-256 and that of its list of originals."""

    bytes: int
    sha256: str
    originals: str


NOTE = ".made.json"  # ends the name of a note, which begins with that of its file


def note(place: Path) -> Note | None:
    """Return the note beside a file, if there is one that can be read."""
    try:
        return Note(**json.loads(place.with_name(place.name + NOTE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def missing(listed: Path, kept: Path) -> list[Original]:
    """Return the originals of a list that are not in the folder `kept`, or are not right there."""
    wanted = _read(listed)
    return [one for one in wanted if not fetch.right(kept / one.member, one.bytes, one.sha256)]


def _read(listed: Path) -> list[Original]:
    with listed.open(newline="", encoding="utf-8") as lines:
        return [Original(**row | {"bytes": int(row["bytes"])}) for row in csv.DictReader(lines)]


def download(base: str, wanted: list[Original], kept: Path) -> None:
    """Bring originals from below the URL `base` into `kept`; what has come stays there."""
    progress = tqdm(wanted, desc="originals", unit="file", disable=None)
    with requests.Session() as session, progress:
        for number, one in enumerate(progress):
            try:
                _bring(session, f"{base}/{quote(one.path)}", one, kept)
            except FAULTS as error:
                raise fetch.SourceError(
                    f"{one.path}: {error}"[:500]
                    + f"\n    ({len(wanted) - number:,} originals are still to come; "
                    "what is here is kept: run it again to go on)"
                ) from error


FAULTS = (fetch.SourceError, requests.RequestException, urllib3.exceptions.HTTPError)


def _bring(session: requests.Session, url: str, one: Original, kept: Path, tries: int = 2) -> None:
    """Ask for an original, once more when the transfer fails."""
    try:
        reply = session.get(url, timeout=(fetch.CONNECT_SECONDS, fetch.READ_SECONDS))
        reply.raise_for_status()
        _keep(reply.content, one, kept)
    except FAULTS:
        if tries == 1:
            raise
        _bring(session, url, one, kept, tries - 1)


def unpack(archive: Path, folder: str, wanted: list[Original], kept: Path) -> None:
    """Bring originals from `folder` of a tar archive into `kept`.

    They are read in the archive's order: going back in a compressed one means to start again.
    """
    waiting = {f"{folder}/{one.path}": one for one in wanted}
    try:
        with tarfile.open(archive) as opened:
            for entry in tqdm(opened, desc=archive.name, unit="file", disable=None):
                if one := waiting.pop(entry.name.removeprefix("./"), None):
                    _keep(opened.extractfile(entry).read(), one, kept)
    except fetch.BROKEN as error:
        raise fetch.SourceError(f"{archive.name}: {error}") from error
    for member in waiting:
        raise fetch.SourceError(f"{archive.name} lacks {len(waiting):,} originals, as {member}")


def _keep(content: bytes, one: Original, kept: Path) -> None:
    """Store an original, or raise `SourceError` because it is something else."""
    if hashlib.sha256(content).hexdigest() != one.sha256:
        came = f"{len(content):,} bytes came instead of the original's {one.bytes:,}"
        raise fetch.SourceError(f"{came}, or others: SHA-256 is not {one.sha256}")
    write(kept / one.member, content)


def make(target: Path, listed: Path, kept: Path, prepare: Callable[[bytes], bytes]) -> None:
    """Make the zip `target` of all originals, each prepared, note its hash; drop the originals."""
    with TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch, target.name)
        with zipfile.ZipFile(made, "w") as archive:
            for one in tqdm(_read(listed), desc=target.name, unit="file", disable=None):
                entry = zipfile.ZipInfo(one.member)  # its date is fixed: same photos, same bytes
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, prepare((kept / one.member).read_bytes()))
        hashes = (pooch.file_hash(str(file)) for file in (made, listed))
        facts = Note(made.stat().st_size, *hashes)
        write(target.with_name(target.name + NOTE), json.dumps(facts._asdict()).encode())
        os.replace(made, target)
    shutil.rmtree(kept)
