"""The one door to the course: `python3 course.py run | test | lab | data`.

The first start makes `.venv` and installs the course into it; later starts go straight to the work.
Any Python must be able to read this file, or it could not say what is wrong with an old one. Hence
no f-strings, no annotations, no pathlib, and nothing but the standard library.
"""

import argparse
import contextlib
import hashlib
import os
import platform
import signal
import struct
import subprocess
import sys
import sysconfig
import time

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
SCRIPTS = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin")
PYTHON = os.path.join(SCRIPTS, "python.exe" if os.name == "nt" else "python")
STAMP = os.path.join(VENV, "installed.txt")  # written last: no stamp, no finished installation
VERSIONS = ("requirements.txt", "constraints.txt", "pyproject.toml")

# What TensorFlow 2.21 has wheels for; pyproject.toml says the same of Python.
OLDEST, NEWEST = (3, 11), (3, 13)
KINDS = ("linux-x86_64", "linux-aarch64", "macosx-arm64", "win-amd64")

CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("pytest", "--nbval-lax"))


def this_python():
    """Describe the running Python: its version, its bits, and the kind of wheel it needs."""
    kind = sysconfig.get_platform()
    if kind.startswith("macosx"):  # a universal build runs as one of two processors
        kind = "macosx-" + platform.machine()
    if "musl" in (sysconfig.get_config_var("EXT_SUFFIX") or ""):
        kind += " with musl"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        kind += " without GIL"
    if platform.python_implementation() != "CPython":
        kind += " with " + platform.python_implementation()
    return {"version": sys.version_info[:2], "bits": 8 * struct.calcsize("P"), "kind": kind}


def refusal(version, bits, kind):
    """Say in plain words why such a Python cannot run the course; None when it can."""
    if version < OLDEST:
        problem = "is too old for TensorFlow"
    elif version > NEWEST:
        problem = "is too new: TensorFlow has no ready-made package (wheel) for it yet"
    elif bits != 64:
        problem = "is a 32-bit one, and TensorFlow exists for 64 bits only"
    elif kind not in KINDS:
        problem = "runs on " + kind + ", for which TensorFlow has no ready-made package (wheel)"
    else:
        return None
    return (
        "This Python %d.%d %s.\n"
        "The course needs a 64-bit Python %d.%d to %d.%d on Linux, on Windows with an Intel or\n"
        "AMD processor, or on macOS with an Apple one. Get it from https://www.python.org/downloads/\n"
        "and start course.py with it, for example:\n"
        "    python3.12 course.py run        (Windows: py -3.12 course.py run)"
    ) % (version + (problem,) + OLDEST + NEWEST)


def say(text):
    """Print a line now, before the commands that follow print theirs."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def environment(**variables):
    """Return the environment of the course's processes: `.venv` first, UTF-8, nothing foreign."""
    env = dict(os.environ, PYTHONUTF8="1", JUPYTER_PREFER_ENV_PATH="1", **variables)
    env["PATH"] = SCRIPTS + os.pathsep + env.get("PATH", "")  # %tensorboard looks for its program
    home = env.get("LABS_HOME") or os.path.join(ROOT, "work")
    env["LABS_HOME"] = os.path.abspath(os.path.expanduser(home))
    for name in ("PYTHONPATH", "PYTHONHOME"):
        env.pop(name, None)
    return env


def call(*command, **variables):
    """Run a command in the repository, with `variables` in its environment; give its exit code."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment(**variables), close_fds=False)
    try:
        return process.wait()
    except KeyboardInterrupt:  # the command got it too: let it end in its own way
        process.wait()
        raise
    finally:
        process.terminate()  # nothing happens to one that has ended


def become(*command, **variables):
    """Let a command take the place of this process, so that stopping the one stops the other."""
    if os.name == "nt":  # exec would return to the prompt while the command goes on
        return call(*command, **variables)
    env = environment(**variables)  # LABS_HOME may be relative to where we still are
    os.chdir(ROOT)
    return os.execve(command[0], command, env)


@contextlib.contextmanager
def one_at_a_time():
    """Wait for any other installation. A pip that outlives its course.py still holds the lock."""
    with open(os.path.join(ROOT, ".venv.lock"), "a") as file:
        if not locked(file):
            say("Another installation is running here; waiting for it ...")
            while not locked(file):
                time.sleep(1)
        os.set_inheritable(file.fileno(), True)
        yield


def locked(file):
    """Try to lock an open file until it is closed by all who hold it; False when another has it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks: go on without one
        pass
    return True


def wanted():
    """Return the lines of the stamp: what `.venv` is made from, then a hash of what is in it."""
    digest = hashlib.sha256()
    for name in VERSIONS:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return ["%d.%d" % sys.version_info[:2], sys.base_prefix, ROOT, digest.hexdigest()]


def found():
    """Return the lines of the stamp in `.venv`; none when no installation was finished."""
    if not (os.path.exists(STAMP) and os.path.exists(PYTHON)):
        return []
    with open(STAMP, encoding="utf-8") as file:
        return file.read().splitlines()


def install():
    """Make `.venv` as the version files want it; do nothing when it is so already."""
    if found() == wanted():
        return
    with one_at_a_time():
        before, after = found(), wanted()
        if before == after:  # the other installation did it
            return
        say("Installing the course into .venv: some minutes, once ...")
        if before:
            os.remove(STAMP)
        if before[:-1] != after[:-1]:  # another Python, a moved folder, or an interrupted start
            step("make .venv", sys._base_executable, "-m", "venv", "--clear", VENV)
        pip = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check")
        step("install", *(pip + ("-r", "requirements.txt", "-c", "constraints.txt", "-e", ".")))
        with open(STAMP, "w", encoding="utf-8") as file:
            file.write("\n".join(after))


def step(name, *command):
    """Run one step of the installation, or end with advice."""
    if call(*command) != 0:
        sys.exit(
            "\nCould not %s: the reason stands above. What helps most often: a connection to the\n"
            "internet, 4 GB of free disk, a short path of this folder (Windows), and closing\n"
            "whatever still uses .venv. Then start the same command again." % name
        )


def run(options):
    """Execute labs in fresh kernels."""
    return become(PYTHON, "-m", "tools.run", *(options.labs + ["--profile", options.profile]))


def test(options):
    """Lint, unit tests, and every lab; the exit code is the worst of the three."""
    codes = [call(PYTHON, "-m", *check, LABS_PROFILE="quick") for check in CHECKS]
    return max(abs(code) for code in codes)


def lab(options):
    """Open JupyterLab on the working copy of the labs."""
    profile = {"LABS_PROFILE": options.profile} if options.profile else {}
    folder = "--ServerApp.root_dir=" + os.path.join(environment()["LABS_HOME"], "labs")
    failed = call(PYTHON, "-m", "tools.workcopy")
    return failed or become(PYTHON, "-m", "jupyterlab", folder, *options.jupyter, **profile)


def data(options):
    """List, fetch or verify the data sets."""
    return become(PYTHON, "-m", "labkit.data", *options.arguments)


def parser():
    """Return the parser of the command line."""
    door = argparse.ArgumentParser(description="Set the course up in .venv, and run it.")
    commands = door.add_subparsers(dest="command", metavar="run | test | lab | data")
    sizes = ("quick", "standard", "full")

    command = commands.add_parser("run", help="execute the labs in fresh kernels, check results")
    command.add_argument("labs", nargs="*", metavar="LAB", help="such as 02; default: all")
    command.add_argument("--profile", choices=sizes, default="quick", help="default: quick")
    command.set_defaults(action=run)

    command = commands.add_parser("test", help="lint, unit tests, and all labs in quick")
    command.set_defaults(action=test)

    command = commands.add_parser("lab", help="open JupyterLab on a working copy of the labs")
    command.add_argument("--profile", choices=sizes, help="default: quick")
    command.add_argument("jupyter", nargs="*", help="after --: options of JupyterLab")
    command.set_defaults(action=lab)

    command = commands.add_parser("data", help="list | fetch NAME... | verify the data sets")
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    command.set_defaults(action=data)
    return door


def main(arguments=None):
    """Check this Python, read the command line, install what is missing, do what was asked."""
    problem = refusal(**this_python())
    if problem:
        sys.exit(problem)
    door = parser()
    options = door.parse_args(arguments)
    if options.command is None:
        door.error("say what to do: run, test, lab or data")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended."))  # so that `call` ends its command
    try:
        install()
        return options.action(options)
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command starts it again.")


if __name__ == "__main__":
    sys.exit(main())
