"""Share of a training epoch that is spent waiting for input (measurement d).

Training takes batches from the pipeline one by one. What it *waits* is the time between asking for
the next batch and having it; with a pipeline that keeps up (`prefetch`) it lies ready. That alone
would hide that on a CPU the pipeline computes on the cores that train. So the same steps are also
timed on batches that lie ready in memory: what the pipeline makes a step longer, waiting included,
is the *cost* of input. Both are given as a share of the epoch; the target is for the waiting.
"""

import itertools
import time
from collections.abc import Iterator

from benchmarks import measure
from labkit import data

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


def sample() -> tuple[np.ndarray, np.ndarray]:
    """Return the bundled CIFAR-10 training images, uint8, and their labels."""
    examples = tfds.load("cifar10_sample", split="train", data_dir=data.tfds_dir("cifar10_sample"))
    pairs = [(example["image"], example["label"]) for example in tfds.as_numpy(examples)]
    images, labels = zip(*pairs, strict=True)
    return np.stack(images), np.array(labels)


class Epoch:
    """Steps of training on one source of batches; `turn` times some, and how long they waited."""

    def __init__(self, model: keras.Model, batches: Iterator, steps: int):
        self.model, self.batches, self.steps = model, batches, steps
        self.waited: list[float] = []

    def turn(self) -> float:
        """Train on `steps` batches; return the seconds of a step and keep the share it waited."""
        begin, waited = time.perf_counter(), 0.0
        for _ in range(self.steps):
            asked = time.perf_counter()
            images, labels = next(self.batches)
            waited += time.perf_counter() - asked
            self.model.train_on_batch(images, labels)
        seconds = time.perf_counter() - begin
        self.waited.append(waited / seconds)
        return seconds / self.steps


def compare(model: keras.Model, batches: tf.data.Dataset, steps: int, repeats: int) -> dict:
    """Return the share of time waited on `batches`, and the cost of input, in turns."""
    ready = itertools.cycle(list(batches.take(steps)))
    epochs = {
        "pipeline": Epoch(model, iter(batches.repeat()), steps),
        "ready": Epoch(model, ready, steps),
    }
    turns = measure.take_turns({name: epoch.turn for name, epoch in epochs.items()}, repeats)
    cost = [1 - b / a for a, b in zip(turns["pipeline"], turns["ready"], strict=True)]
    return measure.summary(epochs["pipeline"].waited[1:]) | {"cost": measure.summary(cost)}
