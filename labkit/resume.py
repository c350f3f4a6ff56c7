"""Training that can be killed at any moment and goes on from its last whole epoch."""

import hashlib
import inspect
import io
import json
import re
import zipfile
from pathlib import Path
from time import perf_counter, time

from labkit.paths import write

import keras
import numpy as np
import tensorflow as tf

LOADED = time()
DAMAGED = (zipfile.BadZipFile, EOFError, ValueError, KeyError)
LIBRARIES = ("keras", "tensorflow", "builtins")  # their code changes with their version


class Resume(keras.callbacks.History):
    """Keep what training needs to go on in one file, replaced atomically after each epoch.

    The file holds weights, random states of layers, optimiser, the state of the other callbacks,
    the history, the seconds spent and the epoch, under a key made of model (with the code of its
    own classes), optimiser, loss, steps per epoch and `context`. `fit` then goes on where it
    stopped and returns the whole history. Where the key differs, training starts afresh and says
    so. The order of shuffled data begins anew, unless it comes from `labkit.order`.
    (`keras.callbacks.BackupAndRestore` writes two files, and forgets the history and the best
    value so far.)

    Arguments:
        file: the `.npz` file to write.
        callbacks: the other callbacks of the same `fit`, whose state is kept too. This one must
            come after them.
        context: what else decides the result (data, seed, profile), anything JSON can hold.
        targets: shape and type of a batch of targets, where they are known: see `make_variables`.
    """

    def __init__(
        self, file: Path, callbacks: list, context: object, targets: tf.TensorSpec | None = None
    ):
        super().__init__()
        self.file, self.callbacks, self.context = file, callbacks, context
        self.targets = targets
        self.seconds = self.resumed_seconds = 0.0

    def on_train_begin(self, logs=None):
        """Take up a stored training of the same key."""
        super().on_train_begin(logs)
        self.model.history = self  # `fit` returns it even when no epoch is left to run
        make_variables(self.model, self.targets)
        kinds = [type(callback).__name__ for callback in self.callbacks]
        self.key = _key(self.model, [self.context, self.params["steps"], kinds])
        stored = self._read()
        if stored:
            self._restore(json.loads(str(stored["state"])), stored)
        self.begin = perf_counter() - self.seconds

    def on_epoch_end(self, epoch, logs=None):
        """Add the epoch to the history and store everything."""
        super().on_epoch_end(epoch, logs)
        self.seconds = perf_counter() - self.begin
        state = {
            "key": self.key,
            "epochs": self.epoch,
            "stopped": self.model.stop_training,
            "history": self.history,
            "seconds": self.seconds,
            "callbacks": [_plain_state(callback) for callback in self.callbacks],
        }
        arrays = {f"variable/{i}": value.numpy() for i, value in enumerate(self._variables())}
        for i, callback in enumerate(self.callbacks):
            for name, values in _array_state(callback).items():
                arrays |= {f"callback/{i}/{name}/{j}": value for j, value in enumerate(values)}
        stream = io.BytesIO()
        np.savez(stream, state=json.dumps(state, default=float), **arrays)
        write(self.file, stream.getvalue())

    def on_train_end(self, logs=None):
        """Let the next `fit` of the same model begin where its caller says."""
        self.model._initial_epoch = None

    def _read(self) -> dict:
        """Return what is stored, when it belongs to this training; else an empty dict."""
        name = self.file.stem
        if not self.file.exists():
            return {}
        try:
            with np.load(self.file) as file:
                stored = dict(file)
            state = json.loads(str(stored["state"]))
        except DAMAGED:
            print(f"{name}: the stored training is damaged: starts afresh")
            return {}
        if state["key"] != self.key or len(state["epochs"]) > self.params["epochs"]:
            print(f"{name}: model, optimiser, data, seed or epochs changed: starts afresh")
            return {}
        return stored

    def _restore(self, state: dict, stored: dict) -> None:
        """Put everything back as it was after the last stored epoch."""
        for i, variable in enumerate(self._variables()):
            variable.assign(stored[f"variable/{i}"])
        for i, (callback, plain) in enumerate(zip(self.callbacks, state["callbacks"], strict=True)):
            vars(callback).update(plain)
            _restore_arrays(callback, f"callback/{i}/", stored)
        self.history, self.epoch, self.seconds = state["history"], state["epochs"], state["seconds"]
        if self.file.stat().st_mtime < LOADED:  # spent in an earlier kernel
            self.resumed_seconds = self.seconds
        done, epochs, name = self.epoch[-1] + 1, self.params["epochs"], self.file.stem
        self.model._initial_epoch = epochs if state["stopped"] else done
        print(f"{name}: goes on after epoch {done} of {epochs} ", end="")
        print(f'(to start afresh: run.forget("{name}"))')

    def _variables(self) -> list:
        """Return all that training changes; the model's own list has the random states, too."""
        return [*self.model.variables, *(v for o in _optimizers(self.model) for v in o.variables)]


def make_variables(model: keras.Model, targets: tf.TensorSpec | None) -> None:
    """Make the variables of a compiled model's optimiser and, where targets are known, metrics.

    Without it they are made in the first step, which TensorFlow then prepares twice. `targets` are
    shape and type of a batch of them.
    """
    model.optimizer.build(model.trainable_variables)
    metrics, outputs = model._compile_metrics, getattr(model, "outputs", ())
    if metrics is not None and not metrics.built and targets and len(outputs) == 1:
        metrics.build(keras.KerasTensor(targets.shape, targets.dtype.name), outputs[0])


def data_sha256(data: object) -> str:
    """Return a hash of training data: arrays and texts by value, data sets by shape and length.

    `data` is one of these, or a list, tuple or dict of them. Raises `TypeError` for anything else.
    """
    if isinstance(data, dict):
        data = [part for pair in sorted(data.items()) for part in pair]
    if isinstance(data, list | tuple):
        text = "".join(data_sha256(part) for part in data)
        return hashlib.sha256(text.encode()).hexdigest()
    if isinstance(data, tf.data.Dataset):
        data = f"{data.element_spec} {data.cardinality()}"
    if data is None or isinstance(data, str):
        return hashlib.sha256(str(data).encode()).hexdigest()
    values = np.ascontiguousarray(data)
    if values.dtype.hasobject:
        kind = type(data).__name__
        raise TypeError(f"data for run.callbacks must be arrays, texts or data sets, not {kind}")
    digest = hashlib.sha256(f"{values.shape} {values.dtype}".encode())
    digest.update(values)  # as they lie in memory: no copy of gigabytes
    return digest.hexdigest()


def targets_of(data: object) -> tf.TensorSpec | None:
    """Return shape and type of the targets in `data`, or in its first part, if it is a data set."""
    first = data[0] if isinstance(data, list) and data else data
    parts = first.element_spec if isinstance(first, tf.data.Dataset) else None
    targets = parts[1] if isinstance(parts, tuple) and len(parts) > 1 else None
    known = isinstance(targets, tf.TensorSpec) and targets.shape.rank is not None
    return targets if known else None


def _optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimiser that `compile` was given, then others that the model keeps."""
    own = [v for v in vars(model).values() if isinstance(v, keras.optimizers.Optimizer)]
    return list({id(optimizer): optimizer for optimizer in [model.optimizer, *own]}.values())


def _key(model: keras.Model, context: object) -> str:
    """Return the hash under which a training is kept."""
    others = [optimizer.get_config() for optimizer in _optimizers(model)[1:]]
    parts = [_config(model), model.get_compile_config(), others, context]
    codes = [_code(layer) for layer in model._flatten_layers()]
    codes += [_code(part) for part in keras.tree.flatten(model._compile_config.config)]
    shapes = [tuple(variable.shape) for variable in model.variables]
    text = _without_counters(json.dumps(parts, sort_keys=True, default=_name))
    return hashlib.sha256(f"{text} {codes} {shapes}".encode()).hexdigest()


def _config(model: keras.Model) -> object:
    """Return what a model is made of; of a subclass without `get_config`, its layers."""
    try:
        return model.get_config()
    except NotImplementedError:
        return [type(model).__name__, *(layer.get_config() for layer in model.layers)]


def _without_counters(text: str) -> str:
    """Number automatic names (`dense_7`) by first appearance: the same for a model built again."""
    known: dict[str, dict[str, int]] = {}

    def place(found: re.Match) -> str:
        numbers = known.setdefault(found[1], {})
        return f'"{found[1]}.{numbers.setdefault(found[0], len(numbers))}"'

    return re.sub(r'"([a-z]\w*?)(?:_\d+)?"', place, text)


def _code(thing: object) -> str:
    """Return the code of a function, or of an object's class and its bases, but for libraries'."""
    kinds = [thing] if inspect.isfunction(thing) else type(thing).__mro__
    own = [kind for kind in kinds if kind.__module__.split(".")[0] not in LIBRARIES]
    members = own if inspect.isfunction(thing) else [m for k in own for m in vars(k).values()]
    members = [getattr(member, "python_function", member) for member in members]  # tf.function
    codes = [member.__code__ for member in members if inspect.isfunction(member)]
    plain = (str, bytes, int, float, bool, type(None))
    constants = [[k for k in code.co_consts if isinstance(k, plain)] for code in codes]
    return repr([(c.co_code, c.co_names, k) for c, k in zip(codes, constants, strict=True)])


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


def _restore_arrays(callback, prefix: str, stored: dict) -> None:
    """Give a callback its lists of arrays back."""
    names = {key.removeprefix(prefix).rsplit("/", 1)[0] for key in stored if key.startswith(prefix)}
    for name in names:
        count = sum(key.startswith(f"{prefix}{name}/") for key in stored)
        setattr(callback, name, [stored[f"{prefix}{name}/{j}"] for j in range(count)])
