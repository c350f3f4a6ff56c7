"""What this machine is, and which numerics it trains fastest with."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from labkit.paths import home, write

import keras
import psutil
import tensorflow as tf

PROBE_SHAPE = (64, 16, 16, 64)  # images, height, width, channels of the convolution that is timed


def describe() -> dict:
    """Return name and size of the machine: processor, cores, memory in GB, GPU, system."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return {
        "processor": _processor(),
        "cores": len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "gpu": ", ".join(found.get("device_name", "GPU") for found in details) or None,
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def probe() -> dict[str, float]:
    """Return GFLOP/s of one training step of a 3×3 convolution per policy, measured once.

    The result is kept in the work folder, under the processor's name, the TensorFlow version,
    whether TensorFlow uses oneDNN, and the instruction set allowed to it. Policies that the machine
    lacks are not tried: on some, trying ends the process.
    """
    settings = (os.environ.get(name, "any") for name in (_ONEDNN, _ISA))
    key = "|".join([_processor(), str(describe()["gpu"]), tf.__version__, *settings])
    file = home() / "machine.json"
    known = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(known, dict):
        known = {}
    if key not in known:
        known[key] = {policy: _gflops(policy) for policy in _candidates()}
        write(file, json.dumps(known, indent=1).encode())
    return known[key]


_ONEDNN, _ISA = "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA"


def _candidates() -> list[str]:
    """Return the policies that the hardware says it can run."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        major = details.get("compute_capability", (0, 0))[0]
        return [
            "float32",
            *(["mixed_bfloat16"] if major >= 8 else ["mixed_float16"] * (major == 7)),
        ]
    allowed = os.environ.get(_ISA, "AVX512_CORE_BF16").upper()
    bfloat16 = "BF16" in allowed or "AMX" in allowed or allowed in ("ALL", "DEFAULT")
    return ["float32", *(["mixed_bfloat16"] if bfloat16 and _has_bfloat16() else [])]


def _has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 itself; only Linux on x86 tells."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "avx512_bf16" in flags.read_text(encoding="utf-8", errors="replace")


def _gflops(policy: str) -> float:
    """Time forward and backward pass of one convolution; the best of a few runs, in GFLOP/s."""
    dtype = keras.DTypePolicy(policy).compute_dtype
    images = tf.cast(tf.random.stateless_normal(PROBE_SHAPE, seed=(0, 0)), dtype)
    channels = PROBE_SHAPE[-1]
    kernel = tf.cast(tf.random.stateless_normal((3, 3, channels, channels), seed=(0, 1)), dtype)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            loss = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME"))
        return [tf.reduce_sum(g) for g in tape.gradient(loss, [images, kernel])]

    def seconds() -> float:
        begin = time.perf_counter()
        for value in step():
            value.numpy()
        return time.perf_counter() - begin

    seconds()  # the first call traces the graph
    flops = 3 * 2 * 9 * channels * int(tf.size(images))
    return round(float(flops / min(seconds() for _ in range(5)) / 1e9), 1)


def ceiling(dtype: str, shapes: Sequence[tuple[int, int, int]], repeats: int = 3) -> dict:
    """Return the GFLOP/s of a machine that does nothing but convolve, for each shape.

    Timed are forward pass and both gradients of one 3 × 3 convolution with equal channels in and
    out; a multiplication and an addition are two operations, the padding's zeros count.

    Arguments:
        dtype: of images and kernel, such as `bfloat16`.
        shapes: (images, height = width, channels) of each convolution; the fastest of several is
            the ceiling.
        repeats: each is the best of so many.
    """
    found = {}
    for shape in shapes:
        step, flops = _ceiling_step(shape, dtype)
        _timed(step)  # traces the graph
        best = min(_timed(step) for _ in range(repeats))
        found["×".join(map(str, shape))] = flops / best / 1e9
    return found


def _ceiling_step(shape: tuple[int, int, int], dtype: str) -> tuple[Callable[[], object], float]:
    """Return one convolution, forward and both gradients, and its floating-point operations."""
    images, side, channels = shape
    random = tf.random.stateless_normal
    x = tf.cast(random((images, side, side, channels), seed=(0, 0)), dtype)
    kernel = tf.cast(random((3, 3, channels, channels), seed=(0, 1)), dtype)
    gradient = tf.cast(random(x.shape, seed=(0, 2)), dtype)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = tf.nn.conv2d(x, kernel, 1, "SAME")
        return y, tape.gradient(y, [x, kernel], output_gradients=gradient)

    return step, 3.0 * 2 * 9 * channels**2 * images * side**2


def _timed(step: Callable[[], object]) -> float:
    """Return the seconds of one call; a GPU is waited for."""
    begin = time.perf_counter()
    step()
    tf.test.experimental.sync_devices()
    return time.perf_counter() - begin


def _processor() -> str:
    """Return the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
