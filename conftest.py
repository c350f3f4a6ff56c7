"""How pytest and nbval run here: the `quick` profile, strict, in a work folder of their own."""

import os
import shutil
import tempfile

from labkit.paths import home

import pytest

NOT_COMPARED = ("text/html", "text/markdown", "image/jpeg", "stderr")


def pytest_configure():
    """Give every kernel and every test the same environment, whatever the shell's is."""
    os.environ["LABS_USER_HOME"] = str(home())  # some tests look into the user's cache
    os.environ["LABS_PROFILE"] = "quick"
    os.environ["LABS_STRICT"] = "1"
    os.environ["LABS_HOME"] = tempfile.mkdtemp(prefix="labs-")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for name in ("LABS_SEED", "LABS_NUMERICS", "LABS_GRADE", "LABS_SOURCE_SHA256"):
        os.environ.pop(name, None)


def pytest_unconfigure():
    """Remove the work folder of this run."""
    shutil.rmtree(os.environ["LABS_HOME"], ignore_errors=True)


def pytest_collectstart(collector):
    """Compare text that a cell prints, not tables in HTML or pictures."""
    if collector.fspath and collector.fspath.ext == ".ipynb":
        collector.skip_compare += NOT_COMPARED


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Let a training cell stay silent for longer than nbval's five seconds."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 600
