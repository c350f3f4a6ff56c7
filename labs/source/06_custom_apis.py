# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 6 · Your own layer, loss, metric, callback and training step
#
# After this lab you can
#
# - write a layer, a loss, a metric and a callback that Keras treats like its own;
# - write the training step itself, and let it report what `fit` alone does not;
# - prove that such a part is right: its values, its gradients, and that it survives saving and loading;
# - train a network made of your own parts beside the same network made of Keras's, and compare them;
# - *(Further)* run the same step in two processes at once, and go on after one of them was killed.
#
# **Chapter 6** of the book. **Needs** lab 4 and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import data, figures, schedules
from preprocessing import flip, image_batches, parse_fn, random_crop
import keras, numpy as np, pandas as pd, tensorflow as tf, tensorflow_datasets as tfds
from keras import layers

run = labkit.start("06_custom_apis")

# %% [markdown]
# ## 1. Why write your own?
#
# Keras has the usual parts. Sooner or later a problem needs another: a loss that weighs one mistake
# more than another, a metric that your field reports, a layer from last week's paper, two networks that
# train each other in turn (lab 11). Each kind of part has a *base class* that does the
# common work. You fill in a few methods, and `compile`, `fit` and `evaluate` use the result like any
# other part:
#
# | part | base class | you write |
# |---|---|---|
# | layer | `keras.layers.Layer` | `build` (make the weights), `call` (compute the output) |
# | loss | `keras.losses.Loss` | `call`: one number for each example |
# | metric | `keras.metrics.Metric` | `update_state` (take in a batch), `result` |
# | callback | `keras.callbacks.Callback` | hooks such as `on_epoch_end` |
# | model | `keras.Model` | `train_step`: what happens with one batch |
#
# and for whatever has settings, `get_config`, so that it can be saved and made again.
#
# In this lab we write what Keras has already. Then there is a right answer to every question, and we
# compare each part with its *twin*: the same inputs must give the same outputs, and the same gradients.
# A wrong gradient raises no error. The network only learns worse, and nobody knows why.


# %% tags=["definition"]
import collections, contextlib, faulthandler, inspect, json, os, random, re, shutil, socket, subprocess, sys, time
from pathlib import Path


def largest_difference(ours, theirs):
    """Return the largest absolute difference between two arrays, or two lists of arrays."""
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    return max(
        (float(np.abs(np.subtract(our, their)).max()) for our, their in pairs), default=np.nan
    )


# %%
differences = collections.defaultdict(list)  # of each pair of twins; section 7 shows them
folder = run.log_dir / "models" / run.profile  # for saved weights

# %% [markdown]
# ## 2. A layer
#
# A layer has three moments. `__init__` keeps the settings. `build` makes the weights: it is called
# once, when the shape of the first input is known, so nobody has to say how many channels come in.
# `call` computes the output, every time. Two more lines are for saving: `get_config` returns the
# settings, and the decorator `register_keras_serializable` enters the class in a register, as
# `labs>CustomConv2D`, where loading finds it.


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class CustomConv2D(layers.Layer):
    """Convolve images: (batch, height, width, channels) -> (batch, height', width', filters)."""

    def __init__(self, filters, kernel_size, strides=1, padding="valid", activation=None,
                 kernel_initializer="glorot_uniform", **options):  # fmt: skip
        super().__init__(**options)
        if padding not in ("valid", "same"):
            raise ValueError(f'padding must be "valid" or "same", not {padding!r}')
        self.filters, self.strides, self.padding = filters, strides, padding
        both = isinstance(kernel_size, int)  # one number for height and width
        self.kernel_size = (kernel_size,) * 2 if both else tuple(kernel_size)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        shape = (*self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape, self.kernel_initializer, name="kernel")
        self.bias = self.add_weight((self.filters,), "zeros", name="bias")

    def call(self, inputs):
        outputs = tf.nn.conv2d(inputs, self.kernel, self.strides, self.padding.upper())
        return self.activation(tf.nn.bias_add(outputs, self.bias))

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


# %% [markdown]
# > **Note on the book.** Its layer always applies ReLU, takes the kernel size only as a pair, and has no
# > `get_config`, so a model that contains it cannot be loaded without further help.
#
# **Before you run the cell:** it makes a layer and gives it two batches. How often is `build` called, and
# how many weights does the layer have before?


# %% tags=["nbval-check-output"]
class Talking(CustomConv2D):
    """A `CustomConv2D` that says what is called."""

    def build(self, input_shape):
        print("build for", input_shape)
        super().build(input_shape)

    def call(self, inputs):
        print("call with", inputs.shape)
        return super().call(inputs)


layer = Talking(filters=4, kernel_size=3)
print(len(layer.weights), "weights")
layer(np.zeros((2, 8, 8, 3), "float32"))
layer(np.zeros((5, 8, 8, 3), "float32"))
print([(weight.name, tuple(weight.shape)) for weight in layer.weights])

# %% [markdown]
# Now the twins. Both get the same weights and the same images; we compare the outputs, and the gradients
# with respect to kernel, bias and images, for several settings.


# %% tags=["definition"]
def outputs_and_gradients(layer, inputs):
    """Return a layer's outputs, and the gradients of their mean square for weights and inputs."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        loss = tf.reduce_mean(tf.square(outputs))
    return outputs, tape.gradient(loss, [*layer.trainable_variables, inputs])


# %% tags=["nbval-check-output"]
images = tf.random.stateless_normal((8, 13, 11, 3), seed=(6, 1))
settings = [
    {"kernel_size": 3, "activation": "relu"},
    {"kernel_size": (5, 2), "padding": "same"},
    {"kernel_size": 3, "strides": 2, "activation": "tanh"},
]
for options in settings:
    ours, theirs = CustomConv2D(16, **options), layers.Conv2D(16, **options)
    theirs(images), ours(images)
    ours.set_weights(theirs.get_weights())
    difference = largest_difference(
        outputs_and_gradients(ours, images), outputs_and_gradients(theirs, images)
    )
    differences["Conv2D", "CustomConv2D"].append(difference)
    print(ours(images).shape, "equal to 1e-5:", difference < 1e-5, options)

# %% [markdown]
# Nothing in the layer names a type of number, and that is on purpose. Under *mixed precision* (lab 4
# trained with it, where the processor can) Keras hands `call` inputs and weights in the short type, and
# keeps the weights themselves in float32, so that small steps are not lost:

# %% tags=["nbval-check-output"]
layer = CustomConv2D(16, 3, dtype="mixed_bfloat16")
outputs = layer(keras.KerasTensor((None, 13, 11, 3)))  # a placeholder: nothing is computed
print("weights", layer.kernel.dtype, "· outputs", outputs.dtype, outputs.shape)

# %% [markdown]
# ## 3. A loss
#
# Our networks will end *without* softmax, in ten numbers $z_j$ (*logits*), and the loss contains the
# softmax. With one-hot targets $y$:
#
# $$L = -\sum_j y_j \ln \frac{e^{z_j}}{\sum_k e^{z_k}} = -\sum_j y_j \Big( z_j - \ln \sum_k e^{z_k} \Big).$$
#
# On paper both forms are the same. In float32 they are not. **Predict first:** two classes, logits
# $(0, z)$, the first class is true. The loss is almost $z$ for large $z$. What does the first form give
# for $z = 30$, and for $z = 200$?


# %% tags=["nbval-check-output"]
def naive(targets, logits):
    """Return the first form: softmax, then the logarithm."""
    return -tf.reduce_sum(targets * tf.math.log(tf.nn.softmax(logits)), axis=-1)


def clipped(targets, logits):
    """Return what Keras makes of probabilities: it cuts them off at 10⁻⁷."""
    return keras.losses.categorical_crossentropy(targets, tf.nn.softmax(logits))


def stable(targets, logits):
    """Return the second form."""
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)


for z in (1.0, 30.0, 200.0):
    logits = tf.constant([[0.0, z]])
    for loss in (naive, clipped, stable):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(tf.constant([[1.0, 0.0]]), logits)
        slope = tape.gradient(value, logits)[0, 1]
        print(f"z = {z:3.0f}  {loss.__name__:8} loss {value[0]:8.4f}  gradient {slope:7.4f}")

# %% [markdown]
# For $z = 200$ the softmax of the true class is smaller than any float32, so it is 0, and its logarithm
# is $-\infty$: one such example turns every weight into NaN. Cutting off keeps the loss finite, but then
# the gradient is 0, and the network learns nothing from its worst mistakes. The second form is right
# everywhere. That is why we end in logits.

# %%
figure, (panel,) = figures.axes(width=5)
steps = np.linspace(0, 120, 241, dtype="float32")
rows = tf.stack([tf.zeros_like(steps), steps], axis=1)
for loss, style in ((stable, "-"), (clipped, "--"), (naive, ":")):
    values = loss(tf.one_hot([0] * len(steps), 2), rows)
    panel.plot(steps, values, linestyle=style, linewidth=3 if loss is naive else 1.5,
               label=loss.__name__)  # fmt: skip
panel.set(xlabel="logit of the wrong class, z", ylabel="loss")
panel.legend()
figures.show(
    figure,
    "The stable form follows the true loss; cutting off flattens it; the naive form ends in infinity.",
)

# %% [markdown]
# A loss function returns one number for *each example*. The base class does the rest: it multiplies by
# the sample weights, if there are any, and takes the mean (it divides by the number of examples; the metric of section 4 divides
# by the sum of the weights). It also brings its inputs to float32, whatever
# the network computes in. Our loss gets *label smoothing* (lab 4) as a setting:


# %% tags=["definition"]
def cross_entropy(targets, logits, label_smoothing=0.0):
    """Return −Σ y ln softmax(z) of each example: twice (batch, classes) -> (batch,)."""
    targets = (1 - label_smoothing) * targets + label_smoothing / targets.shape[-1]
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)


@keras.saving.register_keras_serializable("labs")
class CustomCrossEntropy(keras.losses.Loss):
    """Categorical cross-entropy of one-hot targets and logits."""

    def __init__(self, label_smoothing=0.0, **options):
        super().__init__(**options)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        return cross_entropy(y_true, y_pred, self.label_smoothing)

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}


# %% [markdown]
# > **Note on the book.** Its formulas in code use names of TensorFlow 1 (`tf.log`, `reduction_indices`);
# > today they are `tf.math.log` and `axis`, and the stable function that it names is
# > `tf.nn.softmax_cross_entropy_with_logits`. Its first version has the naive form's infinity.


# %% tags=["definition"]
def value_and_gradient(loss, targets, logits, sample_weight=None):
    """Return a loss and its gradient with respect to the logits."""
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(targets, logits, sample_weight)
    return value, tape.gradient(value, logits)


# %% tags=["nbval-check-output"]
targets = tf.one_hot([3, 1, 4, 1, 5], 10)
logits = 5 * tf.random.stateless_normal((5, 10), seed=(6, 2))
weights = tf.constant([1.0, 0.0, 2.0, 0.5, 1.0])
for smoothing, sample_weight in [(0.0, None), (0.1, None), (0.1, weights)]:
    ours = CustomCrossEntropy(label_smoothing=smoothing)
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    a, b = (value_and_gradient(loss, targets, logits, sample_weight) for loss in (ours, theirs))
    difference = largest_difference(a, b)
    differences["CategoricalCrossentropy", "CustomCrossEntropy"].append(difference)
    weighted = "no weights" if sample_weight is None else "weights"
    print(f"{a[0]:.4f}, smoothing {smoothing}, {weighted}, equal to 1e-5: {difference < 1e-5}")

# %% [markdown]
# ## 4. A metric
#
# Accuracy suits classification; segmentation is measured by the overlap of areas (IoU), object detection
# by mAP (lab 12), image restoration by PSNR and SSIM. A loss sees one batch. A metric speaks of a whole
# epoch, so it must remember: it has *variables*, which `update_state` changes batch by batch, `result`
# reads, and `reset_state` sets back to zero when the next epoch begins (the base class does that).
# Batches may differ in size. **Before you run the cell:** what is the accuracy over a batch of four,
# three of them right, and a batch of one, which is wrong?


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class CustomAccuracy(keras.metrics.Metric):
    """Share of examples whose largest output is at the place of the 1 in the target."""

    def __init__(self, name="accuracy", **options):
        super().__init__(name=name, **options)
        self.right = self.add_weight(initializer="zeros", name="right")
        self.seen = self.add_weight(initializer="zeros", name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        matches = tf.equal(tf.argmax(y_true, axis=-1), tf.argmax(y_pred, axis=-1))
        weights = tf.ones(tf.shape(matches)) if sample_weight is None else sample_weight
        weights = tf.cast(weights, self.dtype)
        self.right.assign_add(tf.reduce_sum(weights * tf.cast(matches, self.dtype)))
        self.seen.assign_add(tf.reduce_sum(weights))

    def result(self):
        return tf.math.divide_no_nan(self.right.value, self.seen.value)


# %% tags=["nbval-check-output"]
metric, batch_results = CustomAccuracy(), []
batches = [([0, 1, 2, 2], [0, 1, 2, 0]), ([1], [2])]  # true classes, predicted classes
for true, predicted in batches:
    metric.update_state(tf.one_hot(true, 3), tf.one_hot(predicted, 3))
    batch_results.append(np.mean(np.equal(true, predicted)))
print(f"mean of the batches {np.mean(batch_results):.3f}, over all examples {metric.result():.3f}")

# %% [markdown]
# The mean of the batch means would give the one example of the last batch as much weight as four others.
# So a metric keeps sums, and divides at the end.

# %% tags=["nbval-check-output"]
ours, theirs = CustomAccuracy(), keras.metrics.CategoricalAccuracy()
for sample_weight in (None, weights):
    for metric in (ours, theirs):
        metric.reset_state()
        for shift in range(3):  # three batches
            true = tf.roll(targets, shift, axis=0)
            metric.update_state(true, logits + 4 * true, sample_weight)
    difference = abs(float(ours.result() - theirs.result()))
    differences["CategoricalAccuracy", "CustomAccuracy"].append(difference)
    print(f"{float(ours.result()):.4f}, equal to 1e-5: {difference < 1e-5}")

# %% [markdown]
# > **Note on the book.** Its metric ignores `sample_weight`, so a weighted evaluation would be wrong
# > without a word. (`reset_states` has become `reset_state`, a name is misspelt, *catrgorical*, and a comment gives
# > 4 for an argmax of 3.)
#
# ## 5. A callback
#
# A callback is told when something happens in `fit`: `on_train_begin`, `on_epoch_end`,
# `on_train_batch_end`, … It sees the model (`self.model`) and the numbers of the moment (`logs`). Keras
# brings some: `EarlyStopping` ends a training that no longer gets better, `ReduceLROnPlateau` lowers
# its learning rate, `TensorBoard` logs, `ModelCheckpoint` saves. Ours does the last: it keeps the weights of
# the best epoch in a file. It writes another file first and then renames it, so that a training killed
# while it writes leaves the file from before.


# %% tags=["definition"]
class SaveBest(keras.callbacks.Callback):
    """Save the weights whenever `monitor` is better than ever before; `mode` is "min" or "max"."""

    def __init__(self, file, monitor="val_loss", mode="min"):
        super().__init__()
        self.file, self.monitor = Path(file), monitor
        self.sign = {"min": -1, "max": 1}[mode]
        self.best = -np.inf  # of sign * value

    def on_train_begin(self, logs=None):
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor not in logs:
            raise ValueError(f"there is no {self.monitor!r} to monitor, only {', '.join(logs)}")
        if self.sign * logs[self.monitor] > self.best:
            self.best = self.sign * float(logs[self.monitor])
            part = self.file.with_name(f"part.{self.file.name}")
            self.model.save_weights(part)
            part.replace(self.file)


# %% [markdown]
# To compare it with Keras's `ModelCheckpoint` we play five epochs by hand: a model with one weight, which is
# set to the number of the epoch, and made-up accuracies, among them one that is no number (NaN). After each epoch, which one is in the file?


# %%
def epochs_kept(saver, file, accuracies):
    """Return which epoch's weight is in the file, after each epoch."""
    toy = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    saver.set_model(toy)
    saver.on_train_begin()
    kept = []
    for epoch, accuracy in enumerate(accuracies):
        toy.set_weights([np.array([[epoch + 1.0]])])
        saver.on_epoch_end(epoch, {"val_accuracy": accuracy})
        toy.load_weights(file)
        kept.append(int(toy.get_weights()[0].item()))
    return kept


# %% tags=["nbval-check-output"]
accuracies = [0.5, 0.7, 0.6, 0.8, float("nan")]
files = [folder / f"toy_{name}.weights.h5" for name in ("own", "keras")]
savers = [
    SaveBest(files[0], "val_accuracy", "max"),
    keras.callbacks.ModelCheckpoint(
        files[1], "val_accuracy", mode="max", save_best_only=True, save_weights_only=True
    ),
]
kept = [epochs_kept(saver, file, accuracies) for saver, file in zip(savers, files)]
differences["ModelCheckpoint", "SaveBest"].append(largest_difference(*kept))
print("SaveBest", kept[0], " ModelCheckpoint", kept[1])

# %% [markdown]
# > **Note on the book.** It asks its `ModelCheckpoint` for a misspelt name and not for the best epoch only,
# > so the file of its Keras network holds the last epoch, but that of its custom network the best one:
# > not a fair comparison. Ours monitor the same number. `SaveBest` stops when there is no such number;
# > `ModelCheckpoint` only warns. (The book's callback watches `loss` unless told otherwise, Keras's `val_loss`; `np.Inf` is
# > now `np.inf`, and files of weights must end in `.weights.h5`. It compares the parts only by the final accuracy.)
#
# ## 6. The training step
#
# In outline, `fit` is two loops. Only one line in them learns:
#
# ```text
# for each epoch:
#     for each batch:
#         logs = train_step(batch)            # this section
#         callbacks: on_train_batch_end(batch, logs)
#     the same with test_step for the validation batches
#     callbacks: on_epoch_end(epoch, logs)    # section 5
# ```
#
# A training step computes outputs and loss while a `GradientTape` records (lab 1), asks the tape for the
# gradient, and lets the optimiser change the weights. We write it as a function that knows neither Keras's
# loop nor its metrics, since we shall use it twice more. It also returns the length (*norm*) of
# the gradient. (`scale_loss` matters only in float16, where small gradients would round to zero: the
# optimiser then multiplies the loss by a large number, and takes it out again.)


# %% tags=["definition"]
def gradient_step(model, optimizer, compute_loss, inputs, targets):
    """Take one step downhill; return the outputs, the loss, and the norm of its gradient."""
    scale = optimizer.scale_loss(tf.constant(1.0))
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = compute_loss(targets, outputs)
        scaled_loss = scale * loss
    gradients = tape.gradient(scaled_loss, model.trainable_variables)
    norm = tf.linalg.global_norm(gradients) / scale
    optimizer.apply(gradients, model.trainable_variables)
    return outputs, loss, norm


# %% [markdown]
# `fit` calls a model's method `train_step`. Ours takes the step, then brings the metrics up to date.
# `self.compute_loss` is the loss given to `compile`, plus what layers add to it (an L2 penalty, say).


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class CustomModel(keras.Model):
    """A model whose `fit` also reports the mean norm of the gradient, as `gradient_norm`."""

    def __init__(self, inputs, outputs, name=None, **options):
        super().__init__(inputs, outputs, name=name, **options)
        self.gradient_norm = keras.metrics.Mean(name="gradient_norm")

    def train_step(self, data):
        inputs, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(data)

        def compute_loss(targets, outputs):
            return self.compute_loss(inputs, targets, outputs, sample_weight)

        outputs, loss, norm = gradient_step(self, self.optimizer, compute_loss, inputs, targets)
        self.gradient_norm.update_state(norm)
        for metric in self.metrics:
            if metric.name == "loss":  # the mean over examples: the last batch may be smaller
                metric.update_state(loss, sample_weight=tf.shape(targets)[0])
        return self.compute_metrics(inputs, targets, outputs, sample_weight)

    def test_step(self, data):
        logs = super().test_step(data)
        return {name: value for name, value in logs.items() if name != "gradient_norm"}


# %% [markdown]
# Twins again: two models with the same first weights, the same 40 examples in batches of 16 (the last
# one has 8), the same sample weights. With plain gradient descent a step subtracts the gradient times the
# learning rate, so equal weights afterwards mean equal gradients.


# %%
def train_toy(kind, first_weights=None):
    """Train a small network of class `kind` for two epochs; return first weights, model, history."""
    inputs = keras.Input((8, 8, 3))
    features = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(inputs))
    toy = kind(inputs, layers.Dense(10)(features))
    toy.set_weights(first_weights or toy.get_weights())
    first_weights = toy.get_weights()
    toy.compile(
        keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"], jit_compile=run.jit_compile,
    )  # fmt: skip
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(40, 8, 8, 3)), keras.utils.to_categorical(rng.integers(0, 10, 40))
    history = toy.fit(
        x, y, sample_weight=rng.random(40), batch_size=16, epochs=2, shuffle=False, verbose=0
    )
    return first_weights, toy, history.history


# %% tags=["nbval-check-output"]
first_weights, theirs, their_history = train_toy(keras.Model)
_, ours, our_history = train_toy(CustomModel, first_weights)
print("fit reports", sorted(our_history))
norms = our_history.pop("gradient_norm")
difference = largest_difference(
    [ours.get_weights(), *our_history.values()],
    [theirs.get_weights(), *(their_history[name] for name in our_history)],
)
differences["Model.train_step", "CustomModel.train_step"].append(difference)
print("equal to 1e-5:", difference < 1e-5)

# %% [markdown]
# ## 7. Save and load
#
# Two kinds of file. `.keras` holds everything: the configuration of every part, the weights, the optimiser's
# memory; `load_model` needs no code but the classes. `.weights.h5` leaves out the configuration: numbers
# only, to be loaded into a model of the same shape. For `.keras` each part must give all its settings in `get_config`, and
# Keras must find the class: that is what the decorator is for.


# %% tags=["definition"]
def make_network(convolution, kind, share=1.0, name=None):
    """Return the book's network of `convolution` layers, a model of class `kind`: 10 logits."""
    widths = [int(width * share) for width in (64, 128, 256, 128, 64)]
    inputs = keras.Input((32, 32, 3))
    features = layers.Rescaling(2.0, offset=-1.0)(inputs)
    features = convolution(widths[0], 3, activation="relu")(features)
    features = layers.MaxPooling2D()(features)
    for width in widths[1:]:
        features = convolution(width, 3, activation="relu")(features)
    features = layers.Dense(64, activation="relu")(layers.Flatten()(features))
    features = layers.Dropout(0.5)(features)
    return kind(inputs, layers.Dense(10, dtype="float32")(features), name=name)


# %% tags=["nbval-check-output"]
small = make_network(CustomConv2D, CustomModel, share=0.125)
small.compile("adam", CustomCrossEntropy(label_smoothing=0.1), metrics=[CustomAccuracy()])
x, y = tf.random.stateless_uniform((16, 32, 32, 3), seed=(6, 3)), tf.one_hot([1, 3] * 8, 10)
small.fit(x, y, verbose=0)
small.save(folder / "small.keras")
small.save_weights(folder / "small.weights.h5")
loaded = keras.saving.load_model(folder / "small.keras")
fresh = make_network(CustomConv2D, CustomModel, share=0.125)
fresh.load_weights(folder / "small.weights.h5")

print(type(loaded).__name__, type(loaded.layers[2]).__name__, type(loaded.loss).__name__)
print("settings equal:", loaded.layers[2].get_config() == small.layers[2].get_config(),
      "· label smoothing", loaded.loss.label_smoothing)  # fmt: skip
print("steps that the optimiser remembers:", int(loaded.optimizer.iterations))
outputs = [network.predict(x, verbose=0) for network in (small, loaded, fresh)]
print("same outputs:", largest_difference(outputs[1:], outputs[:1] * 2) < 1e-5)

# %% [markdown]
# Every part beside its twin, after all comparisons (float32; 0 means equal to the last bit):

# %%
rows = [(*parts, f"{max(values):.1e}") for parts, values in differences.items()]
pd.DataFrame(rows, columns=["Keras's part", "our part", "largest difference"])

# %% tags=["nbval-check-output"]
print(len(differences), "pairs equal to 1e-5:", max(map(max, differences.values())) < 1e-5)

# %% [markdown]
# ## 8. Experiment · Keras's parts against our own
#
# ### 8.1 Prepare the data
#
# CIFAR-10 as in lab 4: the first 90 % of the training part for training, the rest for validation;
# training images are flipped and shifted at random. `quick` reads a small part that ships with the course.

# %%
name = run.scale(quick="cifar10_sample", standard="cifar10", full="cifar10")
(train, validation, test), info = tfds.load(
    name, split=["train[:90%]", "train[90%:]", "test"],
    data_dir=data.tfds_dir(name), with_info=True,
)  # fmt: skip
batch_size = run.scale(quick=32, standard=64, full=64)
validation_batches, test_batches = image_batches(validation), image_batches(test)
print([int(part.cardinality()) for part in (train, validation, test)])

# %% [markdown]
# ### 8.2 Build and train
#
# The network is the CNN of lab 4, ending in logits. *Model-1* is made of Keras's parts, *Model-2* of ours:
# layer, loss, metric, callback, training step. All else is the same, down to the first weights: both
# start from one seed, so their random numbers are the same. (If one of them drew one number more, the
# rest would differ.)

# %% tags=["nbval-check-output"]
first_weights = []
for convolution, kind in [(layers.Conv2D, keras.Model), (CustomConv2D, CustomModel)]:
    keras.utils.set_random_seed(0)
    network = make_network(convolution, kind)
    first_weights.append(network.get_weights())
    print(type(network).__name__, f"{network.count_params():,} parameters")
print("same first weights:", largest_difference(*first_weights) == 0)

# %% [markdown]
# The recipe is that of lab 4: Adam with one cycle of the learning rate, and label smoothing.
#
# `run.callbacks` adds TensorBoard, with a folder for each network, and the file from which an interrupted
# training goes on. That file must not be used when the code has changed. `run.callbacks` checks the code of
# your classes, but not of the functions that they call; so we also name those two.
#
# > **Note on the book.** Both its networks write into one folder, and TensorBoard mixes their curves.


# %%
def train_network(name, convolution, kind, loss, metric, saver):
    """Build, compile and fit a network; return it, as in its best epoch, and its history."""
    keras.utils.set_random_seed(run.seed)
    augment = [flip, random_crop]
    batches = image_batches(train, batch_size, shuffle=True, augment=augment, seed=run.seed)
    epochs = run.scale(quick=6, standard=14, full=60)
    with run.fast():
        network = make_network(convolution, kind, run.scale(quick=0.25, standard=1.0, full=1.0))
    network.compile(
        keras.optimizers.Adam(schedules.one_cycle(1.5e-3, epochs * len(batches))),
        loss=loss, metrics=[metric], jit_compile=run.jit_compile,
    )  # fmt: skip
    code = [inspect.getsource(function) for function in (cross_entropy, gradient_step)]
    history = network.fit(
        batches, validation_data=validation_batches, epochs=epochs, verbose=0, shuffle=False,
        callbacks=run.callbacks(name, saver, data=[batches, *code]),
    )  # fmt: skip
    network.load_weights(folder / f"{name}.weights.h5")
    print(f"{name}: {history.seconds:.0f} s for {epochs} epochs")
    return network, history.history


networks, histories = {}, {}

# %% [markdown]
# **Predict first:** will the two curves be the same, close, or different? The first weights, the batches
# and the random numbers are the same, and each pair of parts was equal up to rounding.

# %%
networks["keras"], histories["keras"] = train_network(
    "keras", layers.Conv2D, keras.Model,
    loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    metric=keras.metrics.CategoricalAccuracy(name="accuracy"),
    saver=keras.callbacks.ModelCheckpoint(
        folder / "keras.weights.h5", "val_accuracy", mode="max",
        save_best_only=True, save_weights_only=True,
    ),
)  # fmt: skip

# %%
networks["custom"], histories["custom"] = train_network(
    "custom", CustomConv2D, CustomModel,
    loss=CustomCrossEntropy(label_smoothing=0.1),
    metric=CustomAccuracy(),
    saver=SaveBest(folder / "custom.weights.h5", "val_accuracy", "max"),
)  # fmt: skip

# %% [markdown]
# ### 8.3 Show the results

# %%
figures.curves(
    histories, ["accuracy", "val_accuracy"],
    labels={"accuracy": "accuracy while training", "val_accuracy": "validation accuracy"},
    caption="Accuracy of the network of Keras's parts and of ours, while training and on validation images.",
)  # fmt: skip

# %%
accuracies = {
    name: network.evaluate(test_batches, verbose=0, return_dict=True)["accuracy"]
    for name, network in networks.items()
}
run.record(**{f"accuracy_{name}": accuracy for name, accuracy in accuracies.items()})
run.record(accuracy_difference=abs(accuracies["keras"] - accuracies["custom"]))
losses = np.array([histories[name]["loss"] for name in ("keras", "custom")])
print("Test accuracy", {name: round(accuracy, 4) for name, accuracy in accuracies.items()})
print("Training loss, difference after each epoch:", np.abs(losses[0] - losses[1]).round(4))

# %% [markdown]
# **What happened, and why.** Our parts and Keras's agree up to rounding, not to the last bit: the loss, for one,
# adds in another order. Thousands of steps enlarge a difference of 10⁻⁷ until the two networks go ways of their
# own (a line of zeros would mean that this machine rounded alike). So *equal to 10⁻⁵* was a question for one
# step; for a whole training, the question is whether both networks are equally *good*. A difference of a
# point or less is what another seed would make, too (in `quick`, with few test images, of a few points). And compare the seconds: parts of your own need
# not be slow.
#
# What Keras's network cannot show, ours does: the norm of the gradient.

# %%
figure, (panel,) = figures.axes(width=5)
epochs = range(1, 1 + len(histories["custom"]["gradient_norm"]))
panel.plot(epochs, histories["custom"]["gradient_norm"], marker="o", markersize=3)
panel.set(xlabel="epoch", ylabel="norm of the gradient", ylim=(0, None))
figures.show(
    figure, "Norm of the gradient, mean over the steps of each epoch, from our training step."
)

# %% [markdown]
# A norm that shoots up warns of a training about to fail; one near zero from the start, of a network that
# cannot learn (lab 5). TensorBoard draws it with all other numbers:

# %%
run.tensorboard()

# %% [markdown]
# ## 9. Further · The same step in two processes, and a worker that dies
#
# When one machine is too slow, several can share each batch. Every *worker* holds a copy of the network
# (*replica*), computes the gradient for its share of the batch, and then all workers add up their gradients
# and take the same step (*synchronous data parallelism*). TensorFlow calls this
# `MultiWorkerMirroredStrategy`. We try it on one computer, with two processes that talk through the loopback
# address 127.0.0.1.
#
# For the sum of the shares to be the gradient of the whole batch, each worker divides the sum of its losses
# by the size of the *whole* batch $B$, not of its share:
#
# $$\nabla \frac1B \sum_{i=0}^{B-1} L_i = \underbrace{\nabla \frac1B \sum_{i \text{ even}} L_i}_{\text{worker 0}}
#   + \underbrace{\nabla \frac1B \sum_{i \text{ odd}} L_i}_{\text{worker 1}}.$$
#
# Keras's optimisers do the adding inside `apply`; so `gradient_step` stays as it is. (`fit` would be
# shorter, but Keras 3 stops there with a `ValueError`: it cannot read a batch that is spread over workers.)


# %% tags=["definition"]
def make_small_network():
    """Return a network that takes a step in milliseconds: (32, 32, 3) -> 10 logits."""
    return keras.Sequential([
        keras.Input((32, 32, 3)), layers.Rescaling(2.0, offset=-1.0),
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.Conv2D(8, 3, strides=2, activation="relu"), layers.Flatten(), layers.Dense(10),
    ])  # fmt: skip


# %% tags=["definition"]
def train_small(strategy, images, targets, folder, report, steps=20, batch_size=32):
    """Train the small network; each worker takes its share of every batch; return the weights.

    Goes on from the last checkpoint in `folder`; calls `report(step, loss)` after each step.
    """
    workers = strategy.num_replicas_in_sync
    worker = strategy.cluster_resolver.task_id if workers > 1 else 0
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model, optimizer = make_small_network(), keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(model.trainable_variables)
    done = tf.Variable(0)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, done=done)
    manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
    manager.restore_or_initialize()

    def share_of_loss(targets, logits):
        return tf.reduce_sum(cross_entropy(targets, logits)) / batch_size

    @tf.function
    def step(*share):
        _, loss, _ = strategy.run(gradient_step, (model, optimizer, share_of_loss, *share))
        return strategy.reduce("SUM", loss, axis=None)

    while done < steps:
        first = int(done) * batch_size % len(images)
        share = slice(first + worker, first + batch_size, workers)
        loss = step(images[share], targets[share])
        done.assign_add(1)
        if worker == 0 and int(done) % 5 == 0:
            manager.save()
        report(int(done), float(loss))
    return model.get_weights()


# %% [markdown]
# First alone, in this process. Without workers TensorFlow's default strategy applies, and `train_small` is an
# ordinary training loop.

# %%
place = run.log_dir / "workers" / run.profile
shutil.rmtree(place, ignore_errors=True)
place.mkdir(parents=True, exist_ok=True)
images, targets = (part.numpy() for part in parse_fn(next(iter(train.batch(128)))))
np.savez(place / "data.npz", images=images, targets=targets)
alone = {}
with tf.device("CPU:0"):  # as the workers, also where there is a GPU
    weights_alone = train_small(
        tf.distribute.get_strategy(), images, targets, place / "alone", alone.__setitem__
    )
print("loss in the first and the last step:", round(alone[1], 4), round(alone[20], 4))

# %% [markdown]
# Each worker is a Python program of its own. It learns from the environment variable `TF_CONFIG` who the
# workers are and which of them it is. We write the program from the functions above, so that nothing is
# written twice. Worker 1 has a defect: told so, it stands still after a certain step, like a machine whose
# disk is full, so that we can kill it exactly there. Whatever happens, a worker ends itself after two minutes.


# %% tags=["definition"]
def work():
    """Train as one of the workers named in TF_CONFIG, in the folder of this script."""
    faulthandler.dump_traceback_later(120, exit=True)  # ends the process even if TensorFlow hangs
    place, stand_still = Path(__file__).parent, int(sys.argv[1])
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    worker = strategy.cluster_resolver.task_id

    def report(step, loss):
        print(json.dumps([step, loss]), flush=True)
        if worker == 1 and step == stand_still:
            time.sleep(120)

    try:
        with np.load(place / "data.npz") as stored:
            data = stored["images"], stored["targets"]
        weights = train_small(strategy, *data, place / "together", report)
        np.savez(place / f"weights_{worker}.npz", *weights)
    except tf.errors.OpError as error:
        sys.exit(f"worker {worker} lost the others: {type(error).__name__}")


def write_worker(place):
    """Write the program `worker.py` from the source of the functions above."""
    imports = "import faulthandler, json, sys, time\nfrom pathlib import Path\n"
    imports += "import keras, numpy as np, tensorflow as tf\nfrom keras import layers\n"
    parts = (cross_entropy, gradient_step, make_small_network, train_small, work)
    code = [imports, *(inspect.getsource(part) for part in parts), "work()\n"]
    (place / "worker.py").write_text("\n\n".join(code), encoding="utf-8")


# %% [markdown]
# And somebody must watch. `run_workers` finds two free ports, starts the workers, and looks after them. When
# one of them dies, the other cannot go on: it sees the connection break, or waits forever for the missing gradients. So the watcher gives
# the rest ten seconds to notice it themselves, then ends them. Nothing stays behind, not even when you
# interrupt the cell.


# %% tags=["definition"]
def cluster(n_workers):
    """Return a TF_CONFIG for each worker: who is there, at free ports of this computer."""
    ports = set()
    while len(ports) < n_workers:
        port = random.SystemRandom().randrange(20_000, 32_000)  # systems hand out higher ones
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    tasks = [{"type": "worker", "index": index} for index in range(n_workers)]
    return [json.dumps({"cluster": {"worker": addresses}, "task": task}) for task in tasks]


def reports(place, worker):
    """Return the steps and losses that a worker has reported so far, {step: loss}."""
    log = (place / f"worker_{worker}.log").read_text(encoding="utf-8", errors="replace")
    return dict(json.loads(line) for line in log.splitlines() if re.fullmatch(r"\[\d.*\]", line))


# %% tags=["definition"]
def run_workers(place, kill_after=0, seconds=100, patience=10):
    """Run two workers until they are done or one has died; return their exit codes.

    Worker 1 is killed after step `kill_after`. When one has died, the other gets `patience` seconds
    to notice. No worker lives longer than this call.
    """
    workers, deadline = [], time.monotonic() + seconds
    try:
        for index, tf_config in enumerate(cluster(2)):
            env = os.environ | {"TF_CONFIG": tf_config, "CUDA_VISIBLE_DEVICES": "-1"}
            env["no_grpc_proxy"] = "127.0.0.1"  # a proxy cannot reach this computer's loopback
            with open(place / f"worker_{index}.log", "w") as log:
                command = [sys.executable, str(place / "worker.py"), str(kill_after)]
                workers.append(subprocess.Popen(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                ))  # fmt: skip
        while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
            if kill_after in reports(place, 1):
                workers[1].kill()
            if any(worker.poll() for worker in workers):  # an exit code that is not 0
                deadline = min(deadline, time.monotonic() + patience)
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return [worker.returncode for worker in workers]


# %% [markdown]
# Now start both, kill worker 1 after step 12, and start again. **Predict first:** the last checkpoint is that of
# step 10. Which steps will be computed twice, and will it show in the end result?

# %%
write_worker(place)
shutil.rmtree(place / "together", ignore_errors=True)  # checkpoints of an earlier run of this cell
print("exit codes, worker 1 killed:", run_workers(place, kill_after=12))
killed = reports(place, 0)
log = place / "worker_0.log"
noticed = re.search("worker 0 lost.*", log.read_text(errors="replace"))
print(noticed[0] if noticed else "worker 0 was ended by the watcher")
for _ in range(2):  # a second time if a port was taken by another program meanwhile
    exit_codes = run_workers(place)
    print("exit codes, started again:", exit_codes)
    if not any(exit_codes):
        break
    print(log.read_text(errors="replace")[-1000:])
resumed = reports(place, 0)

# %%
figure, (panel,) = figures.axes(width=5.5)
panel.plot(alone.keys(), alone.values(), color=figures.COLOURS[0], label="one process")
for losses, marker, label in [
    (killed, "o", "two workers, until one was killed"),
    (resumed, "x", "two workers, started again"),
]:
    panel.plot(losses.keys(), losses.values(), marker, markersize=8, fillstyle="none", label=label)
panel.set(xlabel="step", ylabel="loss")
panel.legend()
figures.show(
    figure,
    "Loss of every step: both starts of the two workers lie on the line of the single process.",
)

# %% tags=["nbval-check-output"]
print("steps of the first start", list(killed), "\nsteps of the second", list(resumed))
together = [*killed.items(), *resumed.items()]
difference = largest_difference(
    [alone[step] for step, _ in together], [loss for _, loss in together]
)
print("losses equal to 1e-4:", difference < 1e-4)
for file in sorted(place.glob("weights_*.npz")):
    with np.load(file) as stored:
        difference = largest_difference([stored[name] for name in stored.files], weights_alone)
    print(file.stem, "equal those of one process to 1e-4:", difference < 1e-4)

# %% [markdown]
# **What happened, and why.** The batch is the same, and the sum of the shares is the whole gradient; so two
# workers take the same steps as one process, but for rounding. When worker 1 died, worker 0 was waiting for
# its gradients, saw the connection break, and stopped. The second start read the checkpoint of step 10, so
# steps 11 and 12 were computed again. Since the checkpoint has the optimiser's momentum and the number of the
# step as well as the weights, the repetition is exact.
#
# On this computer two processes gain nothing: they share its cores. **On several machines** the program
# stays the same; what changes is around it:
#
# - `TF_CONFIG` names the machines (`host:port`), the same list everywhere; each has its own `index`. All start
#   the same program, by hand or, better, by a scheduler (Kubernetes, Slurm), which is also the watcher:
#   if one fails, it restarts all.
# - Checkpoints go where every machine can read them. Worker 0, the *chief*, writes.
# - Each machine reads its own share of the *files*; on a machine with several GPUs,
#   `strategy.distribute_datasets_from_function` hands every GPU its part.
# - Each step sends at least as many numbers as the network has weights, and ends with the slowest machine. So the share
#   of each worker must be large enough to keep it busy for much longer than the sending takes. People let the whole
#   batch grow with the number of workers, and must then adapt the learning rate (Goyal et al., 2017).
# - What is random for each example (dropout, augmentation) needs a seed of its own on each worker, or all
#   workers drop the same neurons. Batch normalisation sees only its worker's share.
# - TensorFlow opens its port on *all* network interfaces, without password or encryption. Do this only in a network
#   that you trust; here the ports are open for a few seconds.
#
# ## 10. Results
#
# Share of test images classified correctly, for the network of Keras's parts and for ours. The book says that
# both are close but does not print the numbers. For the same network in chapter 4 it prints 79.80 %, after
# 100 epochs with its own augmentation. The numbers of `quick` come from a small sample and a quarter of the
# width.

# %%
run.table()

# %% [markdown]
# ## 11. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · A layer
#
# `ChannelScale` multiplies every channel by a number of its own. The numbers are weights, learned, and begin
# at `start`. A saved model must be able to make the layer again.


# %% nbgrader={"grade": false, "grade_id": "channel_scale", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
class ChannelScale(layers.Layer):
    """Multiply each channel by a learned number: (…, channels) -> (…, channels)."""

    def __init__(self, start=1.0, **options):
        super().__init__(**options)
        self.start = start

    def build(self, input_shape):
        """Make the weights, one for each channel."""
        ### BEGIN SOLUTION
        start = keras.initializers.Constant(self.start)
        self.scale = self.add_weight((input_shape[-1],), start, name="scale")
        ### END SOLUTION

    def call(self, inputs):
        """Return the scaled inputs."""
        ### BEGIN SOLUTION
        return inputs * self.scale
        ### END SOLUTION

    def get_config(self):
        """Return all settings, those of the base class included."""
        ### BEGIN SOLUTION
        return super().get_config() | {"start": self.start}
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "channel_scale_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(ChannelScale) as check:
    layer, picture = ChannelScale(start=2.0, name="mine"), np.ones((1, 5, 5, 3), "float32")
    check(layer(picture), 2 * picture, "at first, every value is multiplied by `start`")
    shapes = str([tuple(weight.shape) for weight in layer.trainable_weights])
    check(shapes, "[(3,)]", "make one trainable weight for each channel with add_weight in build")
    layer.set_weights([np.array([1.0, 0.0, -1.0])])
    check(np.array(layer(picture))[0, 0, 0], [1.0, 0.0, -1.0], "multiply by the weights")
    config = layer.get_config()
    settings = config and str([config.get("start"), config.get("name")])
    check(settings, "[2.0, 'mine']", "give `start`, and what super().get_config() returns")

# %% [markdown]
# ### Exercise 2 · A metric with weights
#
# `TopK` is the share of examples whose true class is among the `k` largest outputs. An example with weight 2
# counts like two examples; without weights each counts once. (`tf.math.in_top_k(classes, outputs, k)`
# tells for each example whether its class is among them.)


# %% nbgrader={"grade": false, "grade_id": "top_k", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
class TopK(keras.metrics.Metric):
    """Share of examples whose class is among the `k` largest outputs."""

    def __init__(self, k, name="top_k", **options):
        super().__init__(name=name, **options)
        self.k = k
        self.hits = self.add_weight(initializer="zeros", name="hits")
        self.seen = self.add_weight(initializer="zeros", name="seen")

    def update_state(self, classes, outputs, sample_weight=None):
        """Take in a batch: integers (batch,), numbers (batch, classes), weights (batch,)."""
        ### BEGIN SOLUTION
        hits = tf.cast(tf.math.in_top_k(classes, outputs, self.k), self.dtype)
        weights = tf.ones_like(hits) if sample_weight is None else sample_weight
        self.hits.assign_add(tf.reduce_sum(weights * hits))
        self.seen.assign_add(tf.reduce_sum(weights))
        ### END SOLUTION

    def result(self):
        """Return the share over all batches so far."""
        ### BEGIN SOLUTION
        return self.hits / self.seen
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "top_k_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
def top_k_of(*batches, k=2):
    metric = TopK(k)
    for batch in batches:
        metric.update_state(*(tf.constant(part) for part in batch))
    return metric.result()


with run.exercise(TopK) as check:
    outputs = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]
    first, second = ([2, 1, 2, 2], outputs), ([2], outputs[:1])
    check(top_k_of(first), 0.75, "the class counts if it is among the k largest outputs")
    check(top_k_of(first, k=1), 0.25, "use the k that was given")
    check(top_k_of(first, second), 0.8, "sums over all batches, one division at the end")
    weighted = (*first, [1.0, 1.0, 1.0, 2.0])
    check(top_k_of(weighted), 0.6, "weigh the hits, and divide by the sum of the weights")

# %% [markdown]
# ### Exercise 3 · A callback
#
# Once the loss is NaN or infinite, all further training is for nothing. Write the hook that ends the
# training after the first such *batch*: it sets `self.model.stop_training` to `True`, and `self.stopped_at`
# to the number of the batch. The numbers of the moment are in `logs`. Hooks: `on_epoch_begin`, `on_epoch_end`
# `(self, epoch, logs=None)`, `on_train_batch_begin`, `on_train_batch_end` `(self, batch, logs=None)`.


# %% nbgrader={"grade": false, "grade_id": "stop_on_nan", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
class StopOnNaN(keras.callbacks.Callback):
    """End the training after the first batch whose loss is NaN or infinite."""

    stopped_at = -1  # never so far
    ### BEGIN SOLUTION

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            self.model.stop_training = True
            self.stopped_at = batch

    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "stop_on_nan_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
def stopped(losses):
    """Play a training with these losses; return the batch after which it stopped, and stopped_at."""
    callback, model = StopOnNaN(), keras.Sequential()
    callback.set_model(model)
    for batch, loss in enumerate(losses):
        callback.on_train_batch_end(batch, {"loss": loss})
        if getattr(model, "stop_training", False):
            return [batch, callback.stopped_at]
    return [-1, callback.stopped_at]


with run.exercise(StopOnNaN) as check:
    hooks = " ".join(name for name in vars(StopOnNaN) if name.startswith("on_"))
    check(
        hooks or None, "on_train_batch_end", "write the hook after each training batch, only that"
    )
    check(stopped([2.0, 1.5, 90.0]), [-1, -1], "as long as the loss is a number, training goes on")
    hint = "an infinite loss counts, too; then set stop_training and stopped_at"
    check(stopped([2.0, 1.0, float("inf")]), [2, 2], hint)
    check(stopped([2.0, float("nan")]), [1, 1], "NaN equals nothing, not even NaN: use np.isfinite")

# %% [markdown]
# **Try this, too:** let `CustomModel.train_step` add up the gradients of four batches before it takes a
# step (*gradient accumulation*): a batch four times as large, for machines with little memory. How will
# you prove that it is right?
#
# ## 12. What to remember
#
# - Every kind of part has a base class that does the common work; you write two or three methods.
# - A part of your own is compared with something known, values *and* gradients, before it is trusted.
# - Work from logits: the logarithm of a softmax must never be computed in two steps.
# - A metric keeps sums and divides at the end; a loss gives one number for each example.
# - `get_config` and registration decide whether a model can be loaded by somebody else.
# - `train_step` is the one place where learning happens. `fit`, callbacks and saving work around any.
# - Many workers take the same step as one if every share is divided by the size of the whole batch. Some
#   worker will die: keep checkpoints, and somebody to watch.
#
# **Read on.** Chollet, *Deep Learning with Python*, 2nd edition, 2021 · Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*, 2017 (arXiv:1706.02677) · Micikevicius et
# al., *Mixed Precision Training*, 2018 (arXiv:1710.03740) · Blanchard, Higham and Higham, *Accurately Computing
# the Log-Sum-Exp and Softmax Functions*, 2021.

# %%
run.check()
