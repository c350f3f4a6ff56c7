"""Training that can be killed at any moment and goes on from its last whole epoch."""

import hashlib
import inspect
import json
import os
import re
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


class Resume(keras.callbacks.History):
    """Keep everything that training needs in one file, replaced atomically after each epoch.

    The file holds weights, optimiser, the state of the other callbacks, the history, the seconds
    spent and the epoch, under a key made of model, optimiser, loss and `context`. `fit` then goes
    on where it stopped and returns the whole history. Where the key differs, training starts
    afresh and says so. (`keras.callbacks.BackupAndRestore` writes two files, and forgets the
    history and the best value so far.)

    Arguments:
        file: the `.npz` file to write.
        callbacks: the other callbacks of the same `fit`, whose state is kept too.
        context: what else decides the result (data, seed, profile), anything JSON can hold.
    """

    def __init__(self, file: Path, callbacks: list, context: object):
        super().__init__()
        self.file, self.callbacks, self.context = file, callbacks, context
        self.seconds = self.resumed_seconds = 0.0

    def on_train_begin(self, logs=None):
        """Take up a stored training of the same key."""
        super().on_train_begin(logs)
        self.model.history = self  # `fit` returns it even when no epoch is left to run
        self.model.optimizer.build(self.model.trainable_variables)
        self.key = _key(self.model, self.context)
        self.model._initial_epoch = None
        if self.file.exists():
            self._load()
        self.begin = time.perf_counter() - self.seconds

    def on_epoch_end(self, epoch, logs=None):
        """Add the epoch to the history and store everything."""
        super().on_epoch_end(epoch, logs)
        self.seconds = time.perf_counter() - self.begin
        self._save()

    def _save(self):
        state = {
            "key": self.key,
            "epoch": len(self.epoch),
            "history": self.history,
            "seconds": self.seconds,
            "callbacks": [_plain_state(callback) for callback in self.callbacks],
        }
        arrays = {f"variable/{i}": value.numpy() for i, value in enumerate(self._variables())}
        for i, callback in enumerate(self.callbacks):
            for name, values in _array_state(callback).items():
                arrays |= {f"callback/{i}/{name}/{j}": value for j, value in enumerate(values)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(f".{os.getpid()}.tmp")
        with partial.open("wb") as stream:
            np.savez(stream, state=json.dumps(state, default=float), **arrays)
        os.replace(partial, self.file)

    def _load(self):
        with np.load(self.file) as stored:
            state = json.loads(str(stored["state"]))
            if state["key"] != self.key:
                print(f"{self.file.stem}: model, optimiser, data or seed changed: starts afresh")
                return
            for i, variable in enumerate(self._variables()):
                variable.assign(stored[f"variable/{i}"])
            for i, (callback, plain) in enumerate(
                zip(self.callbacks, state["callbacks"], strict=True)
            ):
                vars(callback).update(plain)
                _restore_arrays(callback, f"callback/{i}/", stored)
        self.history, self.epoch = state["history"], list(range(state["epoch"]))
        self.seconds = self.resumed_seconds = state["seconds"]
        self.model._initial_epoch = state["epoch"]
        print(
            f"{self.file.stem}: goes on after epoch {state['epoch']} of {self.params['epochs']} "
            f'(to start afresh: run.forget("{self.file.stem}"))'
        )

    def _variables(self) -> list:
        """Return all that training changes; the model's own list has the random states, too."""
        return [*self.model.variables, *self.model.optimizer.variables]


def fingerprint(data: object) -> str:
    """Return a hash that changes with the data: arrays by value, data sets by shape and length."""
    digest = hashlib.sha256()
    for part in data if isinstance(data, list | tuple) else [data]:
        if isinstance(part, tf.data.Dataset):
            digest.update(f"{part.element_spec} {part.cardinality()}".encode())
        elif part is not None:
            values = np.ascontiguousarray(part)
            digest.update(f"{values.shape} {values.dtype}".encode() + values.tobytes())
    return digest.hexdigest()


def _key(model: keras.Model, context: object) -> str:
    """Return the hash under which a training is kept; counters in automatic names do not count."""
    parts = [model.get_config(), model.get_compile_config(), context]
    text = re.sub(r"_\d+\b", "", json.dumps(parts, sort_keys=True, default=_name))
    shapes = [tuple(variable.shape) for variable in model.variables]
    return hashlib.sha256(f"{text} {shapes}".encode()).hexdigest()


def _name(thing: object) -> str:
    """Return what identifies an object that JSON does not know, without its address."""
    return getattr(thing, "__name__", type(thing).__name__)


def _plain_state(callback) -> dict:
    """Return the attributes of a callback that JSON can hold and that its caller did not set."""
    plain = (int, float, str, bool, type(None), np.number)
    given = {"_model", "params", *inspect.signature(type(callback)).parameters}
    return {k: v for k, v in vars(callback).items() if isinstance(v, plain) and k not in given}


def _array_state(callback) -> dict[str, list]:
    """Return the attributes of a callback that are lists of arrays, such as `best_weights`."""
    lists = {k: v for k, v in vars(callback).items() if isinstance(v, list) and v}
    return {k: v for k, v in lists.items() if all(isinstance(x, np.ndarray) for x in v)}


def _restore_arrays(callback, prefix: str, stored) -> None:
    """Give a callback its lists of arrays back."""
    names = {key.removeprefix(prefix).rsplit("/", 1)[0] for key in stored if key.startswith(prefix)}
    for name in names:
        count = sum(key.startswith(f"{prefix}{name}/") for key in stored)
        setattr(callback, name, [stored[f"{prefix}{name}/{j}"] for j in range(count)])
