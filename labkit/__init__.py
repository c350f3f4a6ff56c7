"""What a lab needs at run time that is not its lesson: start, data, figures.

Import it before TensorFlow: it sets the environment that TensorFlow and Keras read when they load.
"""

import contextlib
import importlib
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's C++ notices fill every notebook
# Without AVX-512 TensorFlow leaves oneDNN's convolutions off, but they are faster there, too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def start(lab: str, seed: int | None = None):
    """Begin a lab: see `labkit.run.start` (imported late, since it loads TensorFlow)."""
    from labkit.run import start

    return start(lab, seed)


@contextlib.contextmanager
def _silence():
    """Turn away what libraries write to the process's error stream past Python."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if "ipykernel" in sys.modules:  # in a notebook TensorFlow is loaded here: it looks for GPUs aloud
    with _silence():
        importlib.import_module("tensorflow")
