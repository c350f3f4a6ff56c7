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
# # Lab 7 · TensorBoard: watch one training, compare many
#
# After this lab you can
#
# - send numbers, pictures, text, sound and histograms to TensorBoard, and read back what was sent;
# - read a confusion matrix, and draw one after every epoch with a callback of your own;
# - search a grid of hyper-parameters, and look at it in TensorBoard and without it;
# - tell a main effect from an interaction, and a difference from the luck of a seed;
# - choose by validation, and test the winner alone.
#
# **Chapter 7** of the book. **Needs** lab 4 and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import data, figures, results, schedules
from preprocessing import color, flip, image_batches, parse_fn, random_crop, rotate, zoom
import keras, numpy as np, pandas as pd, tensorflow as tf, tensorflow_datasets as tfds
from keras import layers

run = labkit.start("07_tensorboard")

# %% [markdown]
# ## 1. What can be logged
#
# In labs 2 and 4 the callback `keras.callbacks.TensorBoard` wrote loss and metrics after each
# epoch. It also knows histograms of *weights* (`histogram_freq`). But it cannot log a picture, a text or
# a sound that you made, or the outputs of a layer. The functions of `tf.summary` can. A *writer* appends to an event file in a folder;
# TensorBoard reads all event files below the folder that it is given, and shows a page for each
# kind of data in them.
#
# | function | data | page |
# |---|---|---|
# | `tf.summary.scalar` | one number | Scalars, Time Series |
# | `tf.summary.image` | (images, height, width, channels), uint8 or floats in [0, 1] | Images |
# | `tf.summary.text` | a string; Markdown is understood | Text |
# | `tf.summary.audio` | (clips, frames, channels), floats in [−1, 1], and the sample rate | Audio |
# | `tf.summary.histogram` | any numbers | Histograms *and* Distributions |
#
# Each takes a name (its *tag*), the data and a *step*: the place on the horizontal axis, or on the
# slider under a picture.


# %% tags=["definition"]
def new_log(name):
    """Return an empty folder for event files: a second run must not add to those of the first."""
    folder = run.log_dir / name
    for file in folder.rglob("events.*"):
        file.unlink(missing_ok=True)
    return str(folder)


# %% [markdown]
# The simplest first, a sine curve as a metric of 100 steps:

# %%
summary_log = new_log("summary/demo")
writer = tf.summary.create_file_writer(summary_log)
with writer.as_default():
    for step, x in enumerate(np.linspace(0, 2 * np.pi, 100)):
        tf.summary.scalar("sine", np.sin(x), step=step)

# %% [markdown]
# Pictures: one of CIFAR-10, and what four functions of the course make of it (lab 4). Sent with one
# call, they stand side by side; sent one per step, they share a place and a slider. **Before you run
# the next cell:** `max_outputs` is 3 unless you say otherwise. What would you see of the five
# without it?

# %%
samples = tfds.load("cifar10_sample", split="train", data_dir=data.tfds_dir("cifar10_sample"))
airplanes = samples.filter(lambda example: example["label"] == 0).skip(8)
picture, _ = parse_fn(next(iter(airplanes.batch(1))))
changes = {"as it is": None, "zoom": zoom, "flip": flip, "color": color, "rotate": rotate}
views = tf.concat(
    [change(picture, seed=(7, 2)) if change else picture for change in changes.values()], axis=0
)
with writer.as_default():
    tf.summary.image("airplane, side by side", views, step=0, max_outputs=5)
    for step in range(5):
        tf.summary.image("airplane, one per step", views[step : step + 1], step=step)
figures.images(
    list(views), list(changes), "The five pictures that were logged.", columns=5, size=1.4
)

# %% [markdown]
# A text. A good use: write down with which settings a training was started.

# %%
settings = "| setting | value |\n|---|---|\n| learning rate | 0.001 |\n| batch size | 64 |"
with writer.as_default():
    tf.summary.text("settings", settings, step=0)
    tf.summary.text("diary", "The *training* loss falls.", step=0)
    tf.summary.text("diary", "The *validation* loss rises again: it overfits.", step=1)

# %% [markdown]
# A sound needs no file either: three sine waves that fade are a chord.


# %% tags=["nbval-check-output"]
def chord(frequencies, seconds=1.5, sample_rate=16_000):
    """Return a fading chord with values in [−1, 1], shape (1 clip, frames, 1 channel)."""
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    wave = sum(np.sin(2 * np.pi * f * time) for f in frequencies) * np.exp(-3 * time)
    return (wave / np.abs(wave).max()).astype("float32")[None, :, None]


sound = chord([220.0, 277.18, 329.63])  # A major
with writer.as_default():
    tf.summary.audio("chord", sound, sample_rate=16_000, step=0)
print(sound.shape, sound.dtype, "largest value", np.abs(sound).max())

# %% [markdown]
# A histogram at each step: 1,000 normal numbers whose mean moves from 0 to 10. In a training these
# would be the weights or the outputs of a layer; a layer that *dies* shows as a histogram that
# collapses.

# %%
noise = np.random.default_rng(0).normal(size=1000)
with writer.as_default():
    for step in range(101):
        tf.summary.histogram("moving normal", noise + 0.1 * step, step=step)
writer.close()

# %% [markdown]
# > **Note on the book.** The data of its histogram example are not defined. Its printed example for
# > several images cannot run: the file names lack
# > quotes, and the loop goes over the list of results, which is empty, instead of the list of
# > files. It also reads pictures and a sound that must be downloaded; ours are made here.
#
# An event file is not a secret of TensorBoard: what it holds can be read back, which is also how one
# tests a callback.

# %% tags=["definition"]
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def logged(folder):
    """Return (page, tag, number of steps) of everything in the event files of one folder."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if not tag.startswith("_")]
    pages = [events.SummaryMetadata(tag).plugin_data.plugin_name for tag in tags]
    return [(page, tag, len(events.Tensors(tag))) for page, tag in zip(pages, tags)]


# %% tags=["nbval-check-output"]
for page, tag, steps in logged(summary_log):
    print(f"{page:10} {tag:24} {steps:3} steps")

# %%
run.tensorboard()

# %% [markdown]
# ![TensorBoard's page of images: an airplane with a slider, and five views of it side by side](images/tensorboard_images.png)
#
# *The page Images: one picture with a slider for its five steps, and five pictures of a single step.*
#
# ![TensorBoard's page of histograms: a bell that moves from 0 to 10 over 100 steps](images/tensorboard_histograms.png)
#
# *The page Histograms: each slice is a step, the oldest at the back.*

# %% [markdown]
# ## 2. The confusion matrix
#
# One accuracy does not say *which* mistakes a network makes. The confusion matrix $C$ counts:
# $C_{ij}$ images of class $i$ (row) were taken for class $j$ (column). Classes differ in size, so
# each row is divided by its sum:
#
# $$\tilde C_{ij} = \frac{C_{ij}}{\sum_k C_{ik}}.$$
#
# The diagonal then holds each class's *recall*, the share of it that was recognised; where all
# classes are equally large, its mean is the accuracy. A class without images would give 0/0: its row
# stays 0.


# %% tags=["definition"]
def row_shares(matrix):
    """Return a confusion matrix of counts, (classes, classes), with each row divided by its sum."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


# %% tags=["nbval-check-output"]
true, predicted = [2, 1, 0, 2, 2, 0, 1, 1], [0, 1, 0, 2, 2, 0, 2, 1]
toy = tf.math.confusion_matrix(true, predicted).numpy()
print(toy)
print(row_shares(toy).round(2))

# %% [markdown]
# **Predict first:** the book's matrix after 100 epochs. Which of the ten classes is recognised worst?
# Which animal is taken for which?

# %%
classes = tfds.builder("cifar10_sample", data_dir=data.tfds_dir("cifar10_sample"))
classes = classes.info.features["label"].names
book_matrix = np.array(
    [[88, 1, 2, 2, 1, 0, 1, 1, 2, 2], [1, 90, 0, 1, 0, 0, 1, 0, 1, 5],
     [9, 0, 68, 6, 6, 3, 6, 1, 0, 0], [3, 1, 7, 68, 5, 6, 7, 2, 1, 1],
     [2, 0, 6, 4, 80, 2, 6, 1, 0, 0], [2, 0, 5, 20, 4, 63, 3, 3, 0, 0],
     [0, 0, 4, 5, 1, 0, 89, 0, 0, 0], [3, 0, 3, 5, 6, 4, 2, 77, 0, 1],
     [11, 2, 2, 2, 0, 0, 0, 0, 80, 2], [2, 5, 0, 1, 0, 0, 1, 0, 2, 88]]
)  # fmt: skip
figures.confusion(book_matrix, classes, "The book's result (Fig. 7.18), in percent of each row.")


# %% tags=["definition"]
def confused_pairs(shares, classes, n=5):
    """Return the `n` largest entries off the diagonal: true class, predicted class, share."""
    mistakes = shares - np.diag(np.diag(shares))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:n]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return [(classes[i], classes[j], float(mistakes[i, j])) for i, j in pairs]


# %% tags=["nbval-check-output"]
print(f"mean recall {np.diag(book_matrix).mean() / 100:.3f}")
for truth, taken_for, share in confused_pairs(book_matrix / 100, classes):
    print(f"{share:.2f} of all {truth} images are taken for {taken_for}")

# %% [markdown]
# > **Note on the book.** Rows are the true classes. So its 20 % are *dogs taken for cats*; its text says
# > the opposite, cats taken for dogs, which is 6 %. The colour bar of its figure goes to 800 although
# > the shares end at 1. And it draws the matrix of the *test* images after each epoch: whoever
# > watches them while deciding when to stop has used them up. Ours is drawn on validation images.

# %% [markdown]
# ## 3. Experiment 1 · A confusion matrix after every epoch
#
# ### 3.1 Prepare the data
#
# CIFAR-10 with the split, the pipeline and the gentle augmentation (flip and crop) of lab 4. `quick`
# reads a small part that ships with the course.


# %% tags=["definition"]
def load_parts(name, limit="90%"):
    """Return training images (the first `limit`), validation (the last 10 %) and test images."""
    split = [f"train[:{limit}]", "train[90%:]", "test"]
    return tfds.load(name, split=split, data_dir=data.tfds_dir(name))


# %%
name = run.scale(quick="cifar10_sample", standard="cifar10", full="cifar10")
train, validation, test = load_parts(name)
batch_size = run.scale(quick=32, standard=64, full=64)
validation_batches = image_batches(validation, 500)
sizes = [int(part.cardinality()) for part in (train, validation, test)]
print(dict(zip(["training", "validation", "test"], sizes)))

# %% [markdown]
# ### 3.2 Build and train
#
# One function makes the networks of this chapter: the convolutional network of lab 4, with or without
# batch normalisation in front of each ReLU, with a choice of initialisers for all layers but the last
# (lab 5). The last layer has no softmax: it gives *logits*, and the loss is told so (`from_logits=True`).
# The recipe is that of lab 4: Adam with one cycle, and targets softened by 10 % (label smoothing). The
# book's Model-1 had its own augmentation, a constant rate of 0.001 and 100 epochs.


# %% tags=["definition"]
def make_network(settings, share=1.0, name="network"):
    """Return chapter 4's CNN as in `settings`: (32, 32, 3) -> 10 logits; `share` scales widths."""

    def block(x, make_layer, width, **more):
        initializer = settings["initializer"]
        if initializer == "normal_0.01":  # a new one for each layer, or they draw the same numbers
            initializer = keras.initializers.RandomNormal(stddev=0.01)
        x = make_layer(width, kernel_initializer=initializer, **more)(x)
        x = layers.BatchNormalization()(x) if settings["batch_norm"] else x
        return layers.ReLU()(x)

    images = keras.Input((32, 32, 3))
    x = layers.Rescaling(2.0, offset=-1.0)(images)
    for depth, width in enumerate((64, 128, 256, 128, 64)):
        x = block(x, layers.Conv2D, int(width * share), kernel_size=3)
        x = layers.MaxPooling2D()(x) if depth == 0 else x
    x = layers.Dropout(0.5)(block(layers.Flatten()(x), layers.Dense, 64))
    return keras.Model(images, layers.Dense(10, dtype="float32")(x), name=name)


def compile_network(model, learning_rate, steps):
    """Compile with Adam, whose rate makes one cycle in `steps`, and a loss that takes logits."""
    optimizer = keras.optimizers.Adam(schedules.one_cycle(learning_rate, steps))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=run.jit_compile)


# %% tags=["nbval-check-output"]
MODEL_1 = {"batch_norm": False, "initializer": "glorot_uniform"}
for batch_norm in (False, True):
    model = make_network(MODEL_1 | {"batch_norm": batch_norm})
    frozen = sum(weight.numpy().size for weight in model.non_trainable_weights)
    print(
        f"batch_norm={batch_norm!s:5} {model.count_params():,} parameters, {frozen:,} not trained"
    )

# %% [markdown]
# A callback is an object whose methods `fit` calls at fixed moments. Ours predicts the validation
# images once more after each epoch, draws the matrix, turns the figure into an image, and logs it,
# together with each class's recall as a scalar.


# %% tags=["definition"]
import io

from matplotlib import pyplot as plt


def to_image(figure):
    """Return a Matplotlib figure, closed, as an image for TensorBoard: (1, height, width, 4)."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    plt.close(figure)
    return tf.image.decode_png(stream.getvalue(), channels=4)[None]


class ConfusionMatrix(keras.callbacks.Callback):
    """Log the confusion matrix of `batches` after each epoch; keep the counts in `matrices`.

    `batches` must come in the same order every time: do not shuffle them.
    """

    def __init__(self, folder, batches, classes):
        super().__init__()
        self.folder, self.batches, self.classes = folder, batches, classes
        self.labels = np.concatenate([y.numpy().argmax(axis=1) for _, y in batches])
        self.matrices = []

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(self.folder)

    def on_epoch_end(self, epoch, logs=None):
        logits = self.model.predict(self.batches, verbose=0)
        counts = tf.math.confusion_matrix(self.labels, logits.argmax(axis=1), len(self.classes))
        self.matrices.append(counts.numpy())
        figure = figures.confusion_figure(self.matrices[-1], self.classes, numbers="share")
        with self.writer.as_default(step=epoch):
            tf.summary.image("confusion matrix", to_image(figure))
            for name, recall in zip(self.classes, np.diag(row_shares(self.matrices[-1]))):
                tf.summary.scalar(f"recall/{name}", recall)

    def on_train_end(self, logs=None):
        self.writer.close()


# %% [markdown]
# **Predict first:** which classes will be told apart early, vehicles or animals? Will dogs be taken
# for cats here, too?

# %%
keras.utils.set_random_seed(run.seed)
epochs = run.scale(quick=6, standard=12, full=30)
train_batches = image_batches(train, batch_size, True, [flip, random_crop], run.seed)
with run.fast():
    model_1 = make_network(MODEL_1, run.scale(quick=0.25, standard=1.0, full=1.0), "model-1")
compile_network(model_1, 1.5e-3, epochs * len(train_batches))
confusion = ConfusionMatrix(str(run.log_dir / "model-1" / "classes"), validation_batches, classes)
history_1 = model_1.fit(
    train_batches, validation_data=validation_batches, epochs=epochs, verbose=0, shuffle=False,
    callbacks=run.callbacks("model-1", confusion, data=train_batches),
)  # fmt: skip
print(f"{history_1.seconds:.0f} s for {epochs} epochs")

# %% [markdown]
# ### 3.3 Show the results

# %%
stages = [0, epochs // 3 - 1, epochs - 1]
figure, panels = figures.axes(1, 3, width=3.4, height=3.2)
for panel, epoch in zip(panels, stages):
    panel.imshow(row_shares(confusion.matrices[epoch]), cmap="Greys", vmin=0, vmax=1)
    panel.set(title=f"epoch {epoch + 1}", xlabel="predicted class", ylabel="true class")
    panel.set(xticks=range(10), yticks=range(10))
    panel.grid(False)
figures.show(
    figure, "Validation images after the first epoch, a third of the epochs, and the last."
)

# %%
pairs = confused_pairs(row_shares(confusion.matrices[-1]), classes)
pd.DataFrame(pairs, columns=["true class", "taken for", "share"]).round(2)

# %% [markdown]
# **What happened, and why.** Look for two groups: the animals (2 to 7) fill a square in the middle, the
# vehicles (0, 1, 8, 9) the four corners; what is confused looks alike. (In the first picture, compare the diagonals of the
# two.) And look for whole columns that are dark at first: a
# young network answers with a few favourite classes. Compare the table with the book's pairs above.
#
# In TensorBoard the slider below the matrix goes through the epochs.
#
# ![TensorBoard's page of images with the confusion matrix of the last epoch and its slider](images/tensorboard_confusion.png)
#
# *The callback's matrix on the page Images.*

# %%
# The book prints this result; no decision follows from it.
_, accuracy = model_1.evaluate(image_batches(test, 500), verbose=0)
run.record(accuracy_model_1=accuracy)
print(f"Model-1 classifies {accuracy:.1%} of the test images correctly")

# %% [markdown]
# ## 4. Experiment 2 · Many networks
#
# ### 4.1 Prepare the experiment
#
# *Hyper-parameters* are what is set before training: layers, learning rate, initialiser,
# augmentation. A *grid search* trains one network for each combination of the values to try.
# **Before you run the cell:** how many combinations do these four lists have?

# %% tags=["definition", "grid"]
import itertools

FACTORS = {
    "augmentation": [False, True],
    "batch_norm": [False, True],
    "initializer": ["normal_0.01", "glorot_normal", "he_normal"],
    "learning_rate": [0.001, 0.01, 0.03],
}
GRID = [dict(zip(FACTORS, values)) for values in itertools.product(*FACTORS.values())]
SCALE = {"images": 5000, "epochs": 10, "share": 0.5}

# %% tags=["nbval-check-output"]
print(f"{len(GRID)} combinations; the first and the last:", GRID[0], GRID[-1], sep="\n")

# %% [markdown]
# On the whole data set for up to 100 epochs, as in the book, this takes days on two cores. A search does not need
# that: it only has to tell good settings from bad. Ours trains each network **at a small scale**,
# stated in `SCALE`: 5,000 training images, 10 epochs, half the widths. In return every combination
# is trained with **two seeds**, so that we see how much is luck of the start and of the order. It is a *study*: a
# script, `labs/studies/07_grid.py`, that measured the rows one by one, with the function below. The
# rows are part of the repository. Keep the scale in mind: settings that need a long training probably look
# worse than they are. And `normal_0.01` is harder on narrow layers: its 0.01 stays, while He's and
# Glorot's numbers grow when a layer has fewer inputs.
#
# > **Note on the book.** Its 36 networks ran once each, without a seed. Its learning rates stay
# > constant, which is not fair to the large ones, as it says itself. Here all
# > rates follow the same schedule: up for a fifth of the steps, then down to zero. Its metric is the *best*
# > validation accuracy of all epochs, which flatters what jumps about; ours is that of the last epoch.
# > It tests no winner. It also writes the settings to a folder beside the run (`run-1hparam_tuning`)
# > because a separator is missing, and misspells a tag (`Imgae_Augmentation`). Its first
# > writer uses undefined names and lacks `import os`.

# %% [markdown]
# ### 4.2 Build and train
#
# TensorBoard's *HParams* page shows *sessions*: a session is an event file with the settings of a
# run, and the scalars of that run. `hp.KerasCallback` writes the settings; the metrics come from the
# callback that you know. One more file says which settings and metrics there are.


# %% tags=["definition"]
from tensorboard.plugins.hparams import api as hp

METRIC = hp.Metric("epoch_accuracy", group="validation", display_name="validation accuracy")


def describe_experiment(folder):
    """Write which settings and which metric the HParams page has."""
    with tf.summary.create_file_writer(str(folder)).as_default():
        hp.hparams_config([hp.HParam(n, hp.Discrete(v)) for n, v in FACTORS.items()], [METRIC])


def train_session(settings, parts, epochs, share, batch_size=64, callbacks=()):
    """Train a network with these settings; return the history of its epochs."""
    keras.utils.set_random_seed(run.seed)
    train, validation = parts
    augment = [flip, random_crop] if settings["augmentation"] else []
    batches = image_batches(train, batch_size, True, augment, run.seed)
    with run.fast():
        model = make_network(settings, share)
    compile_network(model, settings["learning_rate"], epochs * len(batches))
    return model.fit(
        batches, validation_data=image_batches(validation, 500), epochs=epochs, verbose=0,
        shuffle=False, callbacks=list(callbacks),
    ).history  # fmt: skip


# %% [markdown]
# Four sessions train here and now, on few images: two initialisers, with and without batch
# normalisation. **Predict first:** which of the four will be worst?

# %%
live_log = new_log("live")
describe_experiment(live_log)
few = train.take(run.scale(quick=1000, standard=2000, full=2000)), validation
accuracies = {}
for batch_norm, initializer in itertools.product([False, True], ["normal_0.01", "he_normal"]):
    settings = GRID[0] | {"batch_norm": batch_norm, "initializer": initializer}
    folder = f"{live_log}/run-{len(accuracies) + 1}"
    history = train_session(
        settings, few, epochs=4, share=0.25, batch_size=32,
        callbacks=[
            keras.callbacks.TensorBoard(folder, write_graph=False),
            hp.KerasCallback(folder, settings),
        ],
    )  # fmt: skip
    accuracies[batch_norm, initializer] = history["val_accuracy"][-1]
pd.Series(accuracies).rename_axis(["batch_norm", "initializer"]).unstack().round(3)

# %% [markdown]
# ### 4.3 Show the results of all thirty-six
#
# The rows that come with the repository, written as sessions so that TensorBoard can show them. (The two
# seeds of a combination have the same settings; HParams makes them one *session group*.)


# %% tags=["definition"]
def write_sessions(rows, folder):
    """Write the rows of the study as sessions for HParams; `folder` should be empty."""
    describe_experiment(folder)
    for row in rows:
        settings = {name: row["settings"][name] for name in FACTORS}
        number = f"run-{GRID.index(settings) + 1:02}"
        session = f"{folder}/{number}-seed-{row['settings']['seed']}"
        with tf.summary.create_file_writer(session).as_default():
            hp.hparams(settings, trial_id=number)
        with tf.summary.create_file_writer(f"{session}/validation").as_default():
            for epoch, accuracy in enumerate(row["metrics"]["val_accuracy"]):
                tf.summary.scalar("epoch_accuracy", accuracy, step=epoch)


# %%
rows = results.study("07_grid")
assert len(rows) == 2 * len(GRID), "rows are missing: python -m tools.study 07_grid"
study_log = new_log("study")
write_sessions(rows, study_log)
print(len(rows), "sessions,", f"{sum(row['seconds'] for row in rows) / 60:.0f} minutes of training")

# %% [markdown]
# To see only these, start TensorBoard on the folder `study`: in the command of section 1, add `/study` to
# the path after `--logdir`, and open the page HParams. The pictures show this folder alone.
#
# ![TensorBoard's HParams page: a table with the settings and the accuracy of each session group](images/tensorboard_hparams.png)
#
# *HParams, table view, sorted by validation accuracy.*
#
# ![TensorBoard's HParams page: parallel coordinates of four settings and the validation accuracy](images/tensorboard_parallel.png)
#
# *HParams, parallel coordinates: each line is a session group. Drag along an axis to keep only some.*
#
# All of this can be had without TensorBoard, from a table:

# %%
table = pd.DataFrame([row["settings"] | row["metrics"] for row in rows])
ranking = table.groupby(list(FACTORS)).accuracy.agg(["mean", "min", "max"])
ranking = ranking.sort_values("mean", ascending=False).round(3)
ranking

# %% [markdown]
# The two columns `min` and `max` are the two seeds. How far apart do two seeds of *one* combination
# lie, and how far apart are the first six? From two seeds $a$ and $b$ the variance is $(a-b)^2/2$; the square root of its
# mean over all combinations that learned something is the noise of the experiment.

# %%
twins = table.groupby(list(FACTORS)).accuracy
learned = twins.max() > 0.2  # at chance both seeds agree, which says nothing
noise = np.sqrt(twins.var(ddof=1)[learned].mean())
print(f"combinations that learned something with either seed: {learned.sum()} of {len(GRID)}")
print(f"standard deviation between seeds: {noise:.3f}")
print(f"and of a difference between two means of two seeds: {noise:.3f}, too")
print(f"first minus sixth: {ranking['mean'].iloc[0] - ranking['mean'].iloc[5]:.3f}")

# %% [markdown]
# Less than about twice the noise may be luck, and the first was also *chosen* for being first. The
# seeds change the start, the order and the dropout, not the images: on other images the ranking may differ
# more. And the noise is not equal everywhere: two combinations in which one seed stayed at chance make most of it. Among the
# networks with batch normalisation, which fill the first six places, it is far smaller (compare their `min` and `max`):
# measured by that, first and sixth do differ.

# %% [markdown]
# A **main effect** is what one factor changes on average over all others. The figure shows all networks with each value,
# and their mean.

# %%
figure, panels = figures.axes(1, 4, width=2.6, height=3)
for panel, (factor, values) in zip(panels, FACTORS.items()):
    groups = [table.accuracy[table[factor] == value] for value in values]
    for place, group in enumerate(groups):
        across = place + np.linspace(-0.2, 0.2, len(group))
        panel.plot(across, sorted(group), ".", color=figures.COLOURS[0])
        panel.hlines(group.mean(), place - 0.3, place + 0.3, color="black")
    panel.set(xlabel=factor, ylim=(0, 0.8), xticks=range(len(values)))
    panel.set_xticklabels([str(value).replace("_", "\n", 1) for value in values], fontsize=8)
panels[0].set_ylabel("validation accuracy")
figures.show(
    figure, "Every network as a dot, sorted within its group; the bar is the mean of the group."
)

# %% [markdown]
# **Parallel coordinates**, as on the page HParams: a line is a network with one seed, the darker the more
# accurate. The heights on the first four axes only keep the values apart; on the last axis, read the
# accuracy on the scale at the left.

# %%
places = table[list(FACTORS)].apply(lambda c: c.map(FACTORS[c.name].index) / c.nunique())
places += np.random.default_rng(0).uniform(-0.02, 0.02, places.shape)  # so that lines do not hide
places["validation accuracy"] = table.accuracy
figure, (panel,) = figures.axes(width=8.5, height=3.6)
for row in table.accuracy.sort_values().index:
    colour = plt.cm.cividis_r(table.accuracy[row] / table.accuracy.max())
    panel.plot(range(5), places.loc[row], "-", color=colour, linewidth=1)
white = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
for place, values in enumerate(FACTORS.values()):
    for level, value in enumerate(values):
        height = level / len(values) + 0.06
        panel.text(place, height, value, ha="center", fontsize=8, bbox=white)
panel.set(xticks=range(5), xticklabels=places, ylim=(-0.05, 0.8), xlabel="factors and result")
panel.set_ylabel("validation accuracy (last axis)")
figures.show(figure, "Each line is one network: its four settings, then its validation accuracy.")

# %% [markdown]
# Means over everything can mislead: a factor may matter only *together with* another. That is an
# **interaction**. **Predict first:** with batch normalisation, will the initialiser still matter? And
# without?

# %%
figure, panels = figures.axes(1, 3, width=3, height=3)
for panel, learning_rate in zip(panels, FACTORS["learning_rate"]):
    for batch_norm, marker in ((True, "o"), (False, "s")):
        chosen = table[(table.learning_rate == learning_rate) & (table.batch_norm == batch_norm)]
        groups = [chosen.accuracy[chosen.initializer == name] for name in FACTORS["initializer"]]
        line = panel.plot([group.mean() for group in groups], marker=marker, label=batch_norm)
        for place, group in enumerate(groups):
            panel.plot([place] * len(group), group, ".", color=line[0].get_color(), alpha=0.4)
    panel.set(title=f"learning_rate {learning_rate}", ylim=(0, 0.8), xticks=range(3))
    panel.set_xticklabels([name.replace("_", "\n") for name in FACTORS["initializer"]])
    panel.set_xlabel("initializer")
panels[0].set_ylabel("validation accuracy")
panels[0].legend(title="batch_norm", loc="lower right", fontsize=8)
for panel in panels:
    panel.axhline(0.1, color="grey", linestyle=":", linewidth=1)
figures.show(
    figure,
    "Lines that are not parallel, by more than the scatter of the dots, show an interaction; dotted: chance.",
)

# %% [markdown]
# The same in numbers. Two networks that differ in *one* setting, and in nothing else, seed
# included, are a pair; the mean over all pairs is the effect of this setting, and its sign in
# single pairs says how general it is.


# %% tags=["definition"]
def paired(table, factor, low, high):
    """Return accuracy at level `high` minus at `low`, for each pair that differs only in `factor`."""
    others = [name for name in (*FACTORS, "seed") if name != factor]
    wide = table.pivot(index=others, columns=factor, values="accuracy")
    return wide[high] - wide[low]


# %%
with_bn, without_bn = table[table.batch_norm], table[~table.batch_norm]
effects = {
    "batch_norm on": paired(table, "batch_norm", False, True),
    "augmentation on, with batch_norm": paired(with_bn, "augmentation", False, True),
    "augmentation on, without": paired(without_bn, "augmentation", False, True),
    "he_normal instead of normal_0.01, with batch_norm": paired(
        with_bn, "initializer", "normal_0.01", "he_normal"
    ),
    "he_normal instead of normal_0.01, without": paired(
        without_bn, "initializer", "normal_0.01", "he_normal"
    ),
    "rate 0.001 instead of 0.03, with batch_norm": paired(with_bn, "learning_rate", 0.03, 0.001),
    "rate 0.001 instead of 0.03, without": paired(without_bn, "learning_rate", 0.03, 0.001),
}
pd.DataFrame.from_dict(
    {k: [v.mean(), v.std(), (v > 0).sum(), len(v)] for k, v in effects.items()},
    orient="index", columns=["mean gain", "spread", "pairs with a gain", "pairs"],
).round(3)  # fmt: skip

# %%
gains = {name: gain.groupby("seed").mean().to_list() for name, gain in effects.items()}
run.record(
    accuracy_gain_batch_norm=gains["batch_norm on"],
    accuracy_gain_he_without_batch_norm=gains["he_normal instead of normal_0.01, without"],
    gain_he_with_batch_norm=gains["he_normal instead of normal_0.01, with batch_norm"],
)

# %% [markdown]
# An interaction is a *difference of two differences*: how much more does the initialiser matter
# without batch normalisation than with it? 0 would mean no interaction. (At 0.03 it is negative only because without batch
# normalisation nothing learns there.)

# %%
gain = {
    on: paired(part, "initializer", "normal_0.01", "he_normal").droplevel("batch_norm")
    for on, part in ((False, without_bn), (True, with_bn))
}
interaction = gain[False] - gain[True]
run.record(interaction_initializer_batch_norm=interaction.groupby("seed").mean().to_list())
interaction.groupby("learning_rate").agg(["mean", "min", "max", "size"]).round(3)

# %% [markdown]
# **What happened, and why.** *Batch normalisation* helps in every single pair. Without it, rate 0.03 leaves
# every network at chance (two that fail differ by 0, which pulls the means of other effects down); with it,
# a rate far above Adam's default still trains.
#
# *The initialiser* matters a great deal without batch normalisation, as in lab 5. With it, the book
# expects no effect; ours has one, and its sign depends on the rate (in the figure, with batch normalisation): small initial
# weights are best at 0.001, and worst at the two larger rates. A reason that fits: normalisation hides the *size* of a kernel,
# but a step of a given size turns a small kernel further. So small weights act like a larger learning
# rate (van Laarhoven, 2017). Initialiser and rate cannot be judged one without the other.
#
# *Augmentation* gains nothing on average. With batch normalisation it gains about 2 points at rate 0.001 with the two larger
# initialisers, whose networks reach about 80 % on the training images but only 52 to 55 % on the validation images;
# elsewhere it mostly costs. That is an answer about this scale; the book, with up to 100 epochs, found it among the best.
#
# > **Note on the book.** It concludes from its page HParams that augmentation with batch normalisation
# > gives the best networks; that initialiser and learning rate have little influence, and with batch
# > normalisation the initialiser hardly any; and that its three best networks have rate 0.001. The second
# > statement mixes two worlds: without batch normalisation its own chapter 5 found 10 % for
# > `normal_0.01` and about 80 % for the others. The tables above keep them apart.
#
# ### 4.4 The winner, and the test images
#
# The settings with the best *mean* validation accuracy train once more, at full width (a quarter in
# `quick`) on all training images. The mean that chose them was the largest of thirty-six, so it is
# probably a little too high; and it was measured at a small scale, where settings that need a long training
# lose. Whether they are also best at full scale, this search cannot say. Of the thirty-six, only the
# winner sees the test images.

# %%
winner = next(s for s in GRID if tuple(s.values()) == ranking.index[0])
print(winner)

# %%
keras.utils.set_random_seed(run.seed)
augment = [flip, random_crop] if winner["augmentation"] else []
train_batches = image_batches(train, batch_size, True, augment, run.seed)
with run.fast():
    best = make_network(winner, run.scale(quick=0.25, standard=1.0, full=1.0), "best")
compile_network(best, winner["learning_rate"], epochs * len(train_batches))
history = best.fit(
    train_batches, validation_data=validation_batches, epochs=epochs, verbose=0, shuffle=False,
    callbacks=run.callbacks("best", data=train_batches),
)  # fmt: skip
_, accuracy = best.evaluate(image_batches(test, 500), verbose=0)
run.record(accuracy_best_run=accuracy)
validation_accuracy = history.history["val_accuracy"][-1]
print(f"{epochs} epochs, {history.seconds:.0f} s: {validation_accuracy:.1%}, test {accuracy:.1%}")

# %%
figures.curves(
    {"Model-1": history_1.history, "winner": history.history}, ["accuracy", "val_accuracy"],
    labels={"accuracy": "accuracy while training", "val_accuracy": "validation accuracy"},
    caption="Model-1 of Experiment 1 and the winner of the grid: same images and epochs, other settings.",
)  # fmt: skip

# %% [markdown]
# **What happened, and why.** In the `standard` run the winner also beats Model-1 at full scale. But compare the two
# panels: while training it is far better than on the validation images, so it learns by heart, and the
# augmentation that the small scale rejected would probably pay here. A search answers the question that it
# was asked.
#
# ## 5. Results
#
# `accuracy_…` of a network is the share of *test* images classified correctly. The book prints one
# result in numbers, the confusion matrix of its Model-1 after 100 epochs: its mean recall stands in
# the row of our Model-1, whose recipe is another one (3.2). The gains are differences of *validation* accuracy in the study, at its
# small scale; they are the same in every profile, and their spread is that between the two seeds.
# The numbers of `quick` come from a small sample and cannot be compared with the book's.

# %%
run.table()

# %% [markdown]
# ## 6. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · The most confused pair
#
# Return the true class, the predicted class and the share of the largest mistake. Shares, not counts:
# a large class has more mistakes of every kind. A class without images must not disturb.


# %% nbgrader={"grade": false, "grade_id": "most_confused", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def most_confused(matrix, names):
    """Return (true class, predicted class, share of the row) of the largest mistake in `matrix`.

    `matrix` holds counts, shape (classes, classes), rows are true; `names` are the classes' names.
    """
    ### BEGIN SOLUTION
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    row, column = divmod(shares.argmax(), len(names))
    return names[row], names[column], shares[row, column]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "most_confused_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(most_confused) as check, np.errstate(all="ignore"):
    counts = np.array([[900, 60, 40, 0], [8, 70, 2, 0], [3, 4, 13, 0], [0, 0, 0, 0]])
    names = ["cat", "dog", "ship", "nothing"]
    answer = most_confused(counts, names)
    check(answer if answer is None else len(answer), 3, "return three things: two names, a share")
    check(answer[0] != answer[1], True, "the diagonal holds what is right, not mistakes")
    check("nothing" in answer[:2], False, "0/0 is nan: keep the row of a class without images at 0")
    hint = "divide each row by its sum: of 20 ships, 4 are a larger share than 60 of 1,000 cats"
    check(" and ".join(sorted(answer[:2])), "dog and ship", hint)
    check(answer[0], "ship", "rows are the true classes, columns the predicted ones")
    check(answer[2], 0.2, "the share is the count divided by the sum of its row")

# %% [markdown]
# ### Exercise 2 · A main effect
#
# For each value of a factor: the mean of `accuracy` over all rows with this value, minus the mean
# over all rows. In a full grid these effects add up to 0.


# %% nbgrader={"grade": false, "grade_id": "main_effect", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def main_effect(table, factor):
    """Return a dict: value of the column `factor` -> its effect on the column `accuracy`."""
    ### BEGIN SOLUTION
    means = table.groupby(factor).accuracy.mean()
    return (means - table.accuracy.mean()).to_dict()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "main_effect_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(main_effect) as check:
    runs = pd.DataFrame(
        [("a", 1, 0.1), ("a", 2, 0.3), ("a", 3, 0.8), ("b", 1, 0.5), ("b", 2, 0.6), ("b", 3, 0.1)],
        columns=["letter", "number", "accuracy"],
    )
    effect = main_effect(runs, "number")
    keys = effect if effect is None else sorted(effect)
    check(keys, [1, 2, 3], "one entry for each value of the factor")
    hint = "subtract the mean of all rows: a value that is as good as the others has the effect 0"
    check(sum(effect.values()), 0.0, hint)
    hint = "take the mean over the rows that have this value, not the best or the median"
    check(effect[1], -0.1, hint)
    check(main_effect(runs, "letter")["b"], 0.0, hint)

# %% [markdown]
# ### Exercise 3 · The grid
#
# Return all combinations of the values as dicts; the *last* factor changes fastest, as in section
# 4.1.


# %% nbgrader={"grade": false, "grade_id": "combinations", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def combinations(factors):
    """Return a list of dicts: every way to take one value of each list in `factors`, a dict."""
    ### BEGIN SOLUTION
    found = [{}]
    for name, values in factors.items():
        found = [{**settings, name: value} for settings in found for value in values]
    return found
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "combinations_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(combinations) as check:
    answer = combinations({"a": [1, 2], "b": ["x", "y", "z"], "c": [True, False]})
    count = answer if answer is None else len(answer)
    check(count, 12, "2 · 3 · 2 values make 12 combinations: the numbers multiply")
    check(len({tuple(sorted(s.items())) for s in answer}), 12, "every combination once")
    check(str(answer[1]), "{'a': 1, 'b': 'x', 'c': False}", "the last factor changes fastest")
    check("".join(answer[-1]), "abc", "each dict has all factors, in their order")
    check(
        str(combinations({"a": [5]})),
        "[{'a': 5}]",
        "one factor with one value makes one combination",
    )

# %% [markdown]
# **Try this, too:** let `ConfusionMatrix` also log a histogram of the logits of the true class.
# What does it look like after the first epoch, and after the last?
#
# ## 7. What to remember
#
# - `tf.summary` logs whatever you can compute; a callback decides when.
# - A confusion matrix: rows are true, columns predicted; divide by the row; the diagonal is the recall.
# - What you watch while you decide must be validation data.
# - A grid can be small in scale; say the scale. A ranking is partly luck; several seeds show how much.
# - A mean over everything hides interactions: look at factors two by two.
# - The winner's validation accuracy is probably too good; test it once, and only it.
#
# **Read on.** Bergstra and Bengio, *Random Search for Hyper-Parameter Optimization*, 2012 · Ioffe
# and Szegedy, *Batch Normalization*, 2015 (arXiv:1502.03167) · Bouthillier et al., *Accounting for
# Variance in Machine Learning Benchmarks*, 2021 (arXiv:2103.03098) · van Laarhoven,
# *L2 Regularization versus Batch and Weight Normalization*, 2017 (arXiv:1706.05350) · Smith, *A Disciplined
# Approach to Neural Network Hyper-Parameters*, 2018 (arXiv:1803.09820) · TensorBoard: *Hyperparameter
# Tuning with the HParams Dashboard* (tensorflow.org/tensorboard).

# %%
run.check()
