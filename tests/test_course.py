"""Tests of course.py: it refuses what cannot work, installs once, repairs, and hands on."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import course

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(course.ROOT)
GOOD = {"version": (3, 12), "bits": 64, "kind": "linux-x86_64"}


# --- Which Python ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", course.KINDS)
@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_a_python_with_wheels_is_accepted(version, kind):
    assert course.refusal(version, 64, kind) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": (2, 7)}, "Python 2.7 is too old"),
        ({"version": (3, 8)}, "Python 3.8 is too old"),
        ({"version": (3, 10)}, "Python 3.10 is too old"),
        ({"version": (3, 14)}, "Python 3.14 is too new"),
        ({"bits": 32}, "32-bit"),
        ({"kind": "win-arm64"}, "runs on win-arm64"),
        ({"kind": "macosx-x86_64"}, "runs on macosx-x86_64"),
        ({"kind": "linux-x86_64 with musl"}, "with musl"),
        ({"kind": "linux-x86_64 with PyPy"}, "with PyPy"),
        ({"kind": "linux-x86_64 without GIL"}, "without GIL"),
    ],
)
def test_any_other_is_told_why_and_what_to_do(monkeypatch, change, reason):
    monkeypatch.setattr(course, "this_python", lambda: GOOD | change)
    monkeypatch.setattr(course, "install", lambda: pytest.fail("installed nevertheless"))
    with pytest.raises(SystemExit) as error:
        course.main(["run"])
    assert reason in error.value.code
    assert "64-bit Python 3.11 to 3.13" in error.value.code


def test_this_python_is_described_and_accepted():
    assert course.refusal(**course.this_python()) is None


@pytest.mark.parametrize(
    ("variable", "value", "ending"),
    [
        ("EXT_SUFFIX", ".cpython-312-x86_64-linux-musl.so", " with musl"),
        ("Py_GIL_DISABLED", 1, " without GIL"),
    ],
)
def test_builds_that_need_other_wheels_are_told_apart(monkeypatch, variable, value, ending):
    monkeypatch.setattr(course.sysconfig, "get_platform", lambda: "linux-x86_64")
    monkeypatch.setattr(course.sysconfig, "get_config_var", {variable: value}.get)
    assert course.this_python()["kind"] == "linux-x86_64" + ending


def test_a_universal_macos_build_is_named_after_the_processor(monkeypatch):
    monkeypatch.setattr(course.sysconfig, "get_platform", lambda: "macosx-10.13-universal2")
    monkeypatch.setattr(course.platform, "machine", lambda: "arm64")
    assert course.this_python()["kind"].startswith("macosx-arm64")


def test_old_pythons_can_read_the_file():
    source = (ROOT / "course.py").read_text(encoding="ascii")
    tree = ast.parse(source, feature_version=(3, 6))
    too_new = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Nonlocal, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        assert not isinstance(node, too_new), f"line {node.lineno}"
        if isinstance(node, ast.FunctionDef):
            assert not node.args.kwonlyargs
            assert not node.returns
            assert not any(argument.annotation for argument in node.args.args)
    modules = {
        name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names
    }
    assert not modules & {"pathlib", "venv", "shlex", "tomllib"}  # Python 2.7 lacks some of them


# --- Versions in one place ------------------------------------------------------------------------


def test_pyproject_wants_the_same_pythons():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = SpecifierSet(project["requires-python"])
    accepted = [minor for minor in range(30) if wanted.contains(f"3.{minor}")]
    assert accepted == list(range(course.OLDEST[1], course.NEWEST[1] + 1))


def requirements(name):
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-gpu.txt"])
def test_every_requirement_is_pinned_inside_its_range(name):
    pins = requirements("constraints.txt")
    for package, accepted in requirements(name).items():
        assert accepted.contains(str(pins[package]).removeprefix("==")), package


# --- Installing -----------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of its own, where commands are written down in place of being run."""
    for name in course.VERSIONS:
        (tmp_path / name).write_text(name)
    venv = tmp_path / ".venv"
    monkeypatch.setattr(course, "ROOT", str(tmp_path))
    monkeypatch.setattr(course, "VENV", str(venv))
    monkeypatch.setattr(course, "PYTHON", str(venv / "python"))
    monkeypatch.setattr(course, "STAMP", str(venv / "installed.txt"))
    return Checkout(tmp_path, venv, monkeypatch)


class Checkout:
    def __init__(self, root, venv, monkeypatch):
        self.root, self.venv, self.monkeypatch = root, venv, monkeypatch

    def install(self, stop=None, code=0):
        """Install; return the names of the steps. `stop` raises in pip, `code` is pip's."""
        steps = []

        def call(*command, **variables):
            name = command[2]
            steps.append(name)
            if name == "venv":
                assert "--clear" in command
                self.venv.mkdir(exist_ok=True)
                (self.venv / "python").touch()
                (self.venv / "installed.txt").unlink(missing_ok=True)
                return 0
            if stop:
                raise stop
            return code

        self.monkeypatch.setattr(course, "call", call)
        course.install()
        return steps


def test_the_second_start_installs_nothing(checkout):
    assert checkout.install() == ["venv", "pip"]
    assert checkout.install() == []


def test_an_interrupted_installation_is_made_anew(checkout):
    with pytest.raises(KeyboardInterrupt):
        checkout.install(stop=KeyboardInterrupt)
    assert checkout.install() == ["venv", "pip"]
    assert checkout.install() == []


def test_a_failed_installation_gives_advice_and_is_made_anew(checkout):
    with pytest.raises(SystemExit, match="connection"):
        checkout.install(code=1)
    assert checkout.install() == ["venv", "pip"]


@pytest.mark.parametrize("name", course.VERSIONS)
def test_other_versions_are_installed_over_the_old_ones(checkout, name):
    checkout.install()
    (checkout.root / name).write_text("changed")
    assert checkout.install() == ["pip"]
    assert checkout.install() == []


def test_an_interrupted_change_of_versions_is_made_anew(checkout):
    checkout.install()
    (checkout.root / "requirements.txt").write_text("changed")
    with pytest.raises(KeyboardInterrupt):
        checkout.install(stop=KeyboardInterrupt)
    assert checkout.install() == ["venv", "pip"]


def test_another_python_gets_a_new_environment(checkout, monkeypatch):
    checkout.install()
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere")
    assert checkout.install() == ["venv", "pip"]


def test_a_moved_folder_gets_a_new_environment(checkout, tmp_path, monkeypatch):
    checkout.install()
    for name in course.VERSIONS:
        (tmp_path / "moved").mkdir(exist_ok=True)
        (tmp_path / "moved" / name).write_text(name)
    monkeypatch.setattr(course, "ROOT", str(tmp_path / "moved"))
    assert checkout.install() == ["venv", "pip"]


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    checkout.install()
    (checkout.venv / "python").unlink()
    assert checkout.install() == ["venv", "pip"]


def test_only_one_installs_at_a_time(checkout):
    with course.one_at_a_time(), open(checkout.root / ".venv.lock", "a") as other:
        assert not course.locked(other)
    with open(checkout.root / ".venv.lock", "a") as other:
        assert course.locked(other)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends the lock with the process that took it")
def test_a_pip_that_outlives_its_parent_keeps_the_lock(checkout):
    wait = [sys.executable, "-c", "input()"]
    with course.one_at_a_time():
        orphan = subprocess.Popen(wait, stdin=subprocess.PIPE, close_fds=False)
    with open(checkout.root / ".venv.lock", "a") as other:
        assert not course.locked(other)
        orphan.communicate(b"\n")
        assert course.locked(other)


def test_the_other_installation_is_waited_for_and_not_repeated(checkout, monkeypatch):
    answers = iter([False, False, True])

    def other_finishes(seconds):
        os.makedirs(course.VENV, exist_ok=True)
        Path(course.PYTHON).touch()
        Path(course.STAMP).write_text("\n".join(course.wanted()))

    monkeypatch.setattr(course, "locked", lambda file: next(answers))
    monkeypatch.setattr(course.time, "sleep", other_finishes)
    assert checkout.install() == []


# --- The four commands ----------------------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch):
    """Every command that would be run, without the interpreter, and the variables it gets."""
    seen = []

    def write_down(python, *command, **variables):
        seen.append((list(command), variables))
        return codes.pop(0) if codes else 0

    codes = []
    monkeypatch.setattr(course, "install", lambda: None)
    monkeypatch.setattr(course.signal, "signal", lambda *_: None)
    monkeypatch.setattr(course, "call", write_down)
    monkeypatch.setattr(course, "become", write_down)
    return seen, codes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("run", "-m tools.run --profile quick"),
        ("run 02 04 --profile standard", "-m tools.run 02 04 --profile standard"),
        ("data list", "-m labkit.data list"),
        ("data fetch cifar10 --force", "-m labkit.data fetch cifar10 --force"),
    ],
)
def test_commands_are_handed_on(commands, arguments, expected):
    assert course.main(arguments.split()) == 0
    assert commands[0] == [(expected.split(), {})]


def test_lab_opens_the_working_copy(commands, tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_HOME", str(tmp_path))
    course.main(["lab", "--profile", "full", "--", "--no-browser"])
    copy, jupyter = commands[0]
    assert copy == (["-m", "tools.workcopy"], {})
    folder = f"--ServerApp.root_dir={tmp_path / 'labs'}"
    assert jupyter == (["-m", "jupyterlab", folder, "--no-browser"], {"LABS_PROFILE": "full"})


def test_lab_keeps_the_profile_of_the_environment(commands):
    course.main(["lab"])
    assert commands[0][1][1] == {}


def test_lab_stops_when_the_copy_fails(commands):
    seen, codes = commands
    codes.append(3)
    assert course.main(["lab"]) == 3
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("results", "worst"), [([0, 0, 0], 0), ([1, 0, 0], 1), ([0, 1, 2], 2), ([0, -9, 1], 9)]
)
def test_test_runs_all_checks_and_returns_the_worst(commands, results, worst):
    seen, codes = commands
    codes.extend(results)
    assert course.main(["test"]) == worst
    assert [command[1] for command, _ in seen] == ["ruff", "ruff", "pytest"]
    assert all(variables == {"LABS_PROFILE": "quick"} for _, variables in seen)


@pytest.mark.parametrize("arguments", ["", "walk", "run --profile huge", "test 02"])
def test_a_mistyped_command_installs_nothing(monkeypatch, capsys, arguments):
    monkeypatch.setattr(course, "install", lambda: pytest.fail("installed nevertheless"))
    with pytest.raises(SystemExit) as error:
        course.main(arguments.split())
    assert error.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_ctrl_c_ends_with_a_sentence(commands, monkeypatch):
    def interrupted(*command, **variables):
        raise KeyboardInterrupt

    monkeypatch.setattr(course, "become", interrupted)
    with pytest.raises(SystemExit, match="Stopped"):
        course.main(["run"])


# --- Processes ------------------------------------------------------------------------------------


def test_a_command_sees_the_environment_of_the_course(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("LABS_HOME", "here")
    env = course.environment(LABS_PROFILE="full")
    assert env["PATH"].startswith(course.SCRIPTS + os.pathsep)
    assert "PYTHONPATH" not in env
    assert os.path.isabs(env["LABS_HOME"])
    assert env["LABS_PROFILE"] == "full"
    assert env["PYTHONUTF8"] == "1"


def test_call_runs_in_the_repository_and_returns_the_exit_code():
    code = f"import os, sys; sys.exit(7 if os.path.samefile('.', {course.ROOT!r}) else 1)"
    assert course.call(sys.executable, "-c", code) == 7


def test_ctrl_c_waits_for_the_command(monkeypatch):
    calls = []

    class Process:
        def wait(self):
            calls.append("wait")
            if len(calls) == 1:
                raise KeyboardInterrupt

        def terminate(self):
            calls.append("terminate")

    monkeypatch.setattr(course.subprocess, "Popen", lambda *_, **__: Process())
    with pytest.raises(KeyboardInterrupt):
        course.call("pip")
    assert calls == ["wait", "wait", "terminate"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a program could hear")
def test_a_terminated_start_takes_its_command_along():
    last = "import time; print('started', flush=True); time.sleep(30)"
    first = (
        f"import course, sys; course.install = lambda: course.call(sys.executable, '-c', {last!r});"
        "course.main(['test'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", first], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"started\n"
    process.terminate()
    assert b"Ended" in process.communicate(timeout=20)[1]  # end of file: the command is gone too


def test_become_hands_over_process_place_and_exit_code(tmp_path):
    last = (
        "import os, sys; print(os.getpid(), os.getcwd(), os.environ['LABS_HOME'], sep='|'); exit(5)"
    )
    first = f"import course, sys; sys.exit(course.become(sys.executable, '-c', {last!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", first],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LABS_HOME": "mine"},
        stdout=subprocess.PIPE,
        text=True,
    )
    pid, folder, home = process.communicate(timeout=60)[0].strip().split("|")
    assert process.returncode == 5
    assert os.name == "nt" or int(pid) == process.pid
    assert os.path.samefile(folder, ROOT)
    assert os.path.samefile(os.path.dirname(home), tmp_path)
