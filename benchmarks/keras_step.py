"""A worker that times training steps of a network in Keras: `python -m benchmarks.keras_step ours`.

`ours` is what the labs do (the policy of `run.fast()`, `jit_compile=run.jit_compile`), `default`
what Keras does by itself (float32, `jit_compile="auto"`, which today means no XLA where there is
only a CPU), `xla` float32 with XLA. All train by `fit`, on batches that lie ready in memory.
"""

import argparse
import contextlib
import sys

from benchmarks import measure
from tools import cells

import keras
import numpy as np
import tensorflow as tf

LAB = "04_cifar10"
VARIANTS = ("ours", "default", "xla")


def lab(name: str = LAB) -> dict:
    """Return the definitions of a lab; what its set-up cell prints goes to the error stream."""
    with contextlib.redirect_stdout(sys.stderr):
        return cells.load(name)


def ready_batches(steps: int, batch_size: int) -> tf.data.Dataset:
    """Return `steps` batches of noise and one-hot labels, in memory as a training takes them.

    A step takes the same time whatever the pictures show.
    """
    random = np.random.default_rng(0)
    images = random.random((steps, batch_size, 32, 32, 3), dtype="float32")
    labels = np.eye(10, dtype="float32")[random.integers(0, 10, (steps, batch_size))]
    return tf.data.Dataset.from_tensor_slices((images, labels)).prefetch(2)


def make_trainer(names: dict, variant: str, share: float = 1.0) -> keras.Model:
    """Return the compiled network of chapter 4 as one of `VARIANTS`."""
    run = names["run"]
    keras.utils.set_random_seed(0)
    if variant == "ours":
        with run.fast():
            model = names["make_cnn"](share)
    else:
        model = names["make_cnn"](share)
    model.compile(
        keras.optimizers.Adam(),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile={"ours": run.jit_compile, "default": "auto", "xla": True}[variant],
    )
    return model


def turns(model: keras.Model, batches: tf.data.Dataset):
    """Return a function that trains one pass over `batches` and returns the seconds of a step."""
    steps = len(batches)
    return lambda: measure.timed(lambda: model.fit(batches, verbose=0, shuffle=False)) / steps


def main() -> None:
    """Prepare the asked variant and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--share", type=float, default=1.0, help="of the network's width")
    options = parser.parse_args()
    names = lab()
    model = make_trainer(names, options.variant, options.share)
    turn = turns(model, ready_batches(options.steps, options.batch_size))
    turn()  # traces, compiles, and fills the caches
    policy = names["run"].fast_policy if options.variant == "ours" else "float32"
    measure.serve(turn, policy=policy, parameters=model.count_params())


if __name__ == "__main__":
    main()
