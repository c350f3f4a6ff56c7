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
# # Lab 5 · Initialisation and batch normalisation
#
# After this lab you can
#
# - run backpropagation by hand through a small network, and check it;
# - say why signals and gradients vanish, and measure it layer by layer;
# - choose the initialiser that belongs to an activation;
# - say what batch normalisation does, in training and in prediction;
# - take a fast network apart, one idea at a time, and train it on a CPU in minutes.
#
# **Chapter 5** of the book. **Needs** lab 4 and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import data, figures, results, schedules
from preprocessing import flip, image_batches, random_crop
import keras, numpy as np, pandas as pd, tensorflow as tf, tensorflow_datasets as tfds
from keras import layers

run = labkit.start("05_initialization_and_batchnorm")

# %% [markdown]
# ## 1. Backpropagation by hand
#
# A network learns by $W \leftarrow W - \eta\, \partial L / \partial W$, so it needs the derivative of
# the loss with respect to every weight. Take the smallest network with a hidden layer: one input
# $x$, two weights, a sigmoid $f$ after each:
#
# $$z_1 = w_1 x, \quad h = f(z_1), \quad z_2 = w_2 h, \quad \hat y = f(z_2), \quad L = (y - \hat y)^2.$$
#
# The chain rule walks from the loss back to the input, one factor for each step of the way forward:
#
# $$\frac{\partial L}{\partial w_1} =
#   \underbrace{-2 (y - \hat y)}_{\partial L / \partial \hat y} \;
#   \underbrace{f'(z_2)}_{\partial \hat y / \partial z_2} \;
#   \underbrace{w_2}_{\partial z_2 / \partial h} \;
#   \underbrace{f'(z_1)}_{\partial h / \partial z_1} \;
#   \underbrace{x}_{\partial z_1 / \partial w_1}, \qquad f'(z) = f(z)\,(1 - f(z)).$$


# %% tags=["nbval-check-output"]
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


x, y, w1, w2 = 0.4, 1.0, 1.0, 1.0
h = sigmoid(w1 * x)
y_hat = sigmoid(w2 * h)
factors = [-2 * (y - y_hat), y_hat * (1 - y_hat), w2, h * (1 - h), x]
print(f"h = {h:.3f}, prediction {y_hat:.3f}, loss {(y - y_hat) ** 2:.3f}")
print("factors", np.round(factors, 4), "product", round(np.prod(factors), 6))

# %% [markdown]
# TensorFlow's *gradient tape* records what is computed and then walks back in the same way, for
# millions of weights at once:

# %% tags=["nbval-check-output"]
weights = [tf.Variable(1.0), tf.Variable(1.0)]
with tf.GradientTape() as tape:
    loss = (1.0 - tf.sigmoid(weights[1] * tf.sigmoid(weights[0] * 0.4))) ** 2
by_tape = float(tape.gradient(loss, weights[0]))
print(f"{by_tape:.6f}, as by hand:", np.isclose(by_tape, np.prod(factors), atol=1e-7))
print("as the book prints it:", np.isclose(by_tape, -0.015601176, rtol=0, atol=1e-8))

# %% [markdown]
# > **Note on the book.** It swaps the values of the two sigmoid derivatives, $f'(0.4) = 0.240$ and
# > $f'(0.599) = 0.229$; its product is right.
#
# ## 2. Why gradients vanish
#
# Every layer on the way back multiplies by a weight and by the slope $f'$ of its activation. The
# slopes of five sigmoid layers multiply to at most $0.25^5 \approx 0.001$; only large weights can make
# up for it. Tanh is better (its slope reaches 1, but only at 0). ReLU has slope 1 wherever
# its input is positive, and 0 elsewhere: a unit whose input is negative for *every* example
# gets no gradient at all and is *dead*.
#
# > **Note on the book.** Its argument counts the slopes only, not the weights (and what it reduces "at least 0.25 times" is
# > multiplied by at most 0.25). It sets the slope of ReLU
# > at 0 to 1: there is none, and TensorFlow takes 0. It does not mention dead units.

# %%
figure, panels = figures.axes(1, 3, width=3.2, height=2.5)
curves = {
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "ReLU": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
}
for panel, (name, (function, slope)) in zip(panels, curves.items()):
    figures.draw(panel, function, -4, 4, label="value")
    figures.draw(panel, slope, -4, 4, label="slope")
    panel.set(title=name, xlabel="z", ylabel="value and slope", ylim=(-1.1, 1.5))
panels[0].legend()
figures.show(figure, "Three activations and their slopes: only ReLU keeps slope 1 for large z.")

# %% [markdown]
# ## 3. Where to start: the size of the first weights
#
# A layer adds up $n_\text{in}$ products. If the weights have mean 0 and are independent of each other and
# of the inputs, the *variance* of the sum is $n_\text{in} \operatorname{Var}(w) \operatorname{E}[x^2]$.
# So each layer multiplies the size of the signal by a factor, and so does each layer of the way back,
# with $n_\text{out}$ in place of $n_\text{in}$. Ten layers with factor 0.5 leave a thousandth of the
# signal; ten with factor 2 make it a thousand times larger. The two common initialisers choose the
# variance so that the factor is about 1:
#
# $$\text{Glorot: } \operatorname{Var}(w) = \frac{2}{n_\text{in} + n_\text{out}} \qquad
#   \text{He: } \operatorname{Var}(w) = \frac{2}{n_\text{in}}.$$
#
# Glorot and Bengio (2010) looked at both directions for activations that are nearly straight around
# zero (tanh). He et al. (2015) added a factor 2 for ReLU, because
# $\operatorname{E}[\max(0, z)^2] = \tfrac12 \operatorname{Var}(z)$ for symmetric $z$. Each comes
# as a normal and as a uniform distribution with the same variance. (Keras starts `Dense` and
# `Conv2D` with Glorot *uniform*; the book's experiments take *normal*.) For a convolution
# $n_\text{in}$ is kernel height × width × input channels, $n_\text{out}$ kernel height × width × output
# channels.
#
# The experiment of the chapter: 100 examples of 100 random numbers go through five dense layers of
# 100 without bias. **Predict first:** for each of the five pairs below, what will the outputs of
# the fifth layer look like?


# %% tags=["definition"]
def five_layers(activation, make_initializer, size=100, layers_deep=5):
    """Return a model that gives the output of each of its dense layers."""
    inputs = hidden = keras.Input((size,))
    outputs = []
    for _ in range(layers_deep):
        hidden = layers.Dense(
            size, activation, use_bias=False, kernel_initializer=make_initializer()
        )(hidden)
        outputs.append(hidden)
    return keras.Model(inputs, outputs)


# %%
normal = keras.initializers.RandomNormal
pairs = {
    "sigmoid, normal σ = 1": ("sigmoid", lambda: normal(stddev=1.0)),
    "sigmoid, normal σ = 0.01": ("sigmoid", lambda: normal(stddev=0.01)),
    "sigmoid, Glorot": ("sigmoid", keras.initializers.GlorotNormal),
    "ReLU, Glorot": ("relu", keras.initializers.GlorotNormal),
    "ReLU, He": ("relu", keras.initializers.HeNormal),
}
keras.utils.set_random_seed(run.seed)
numbers = np.random.default_rng(0).normal(size=(100, 100)).astype("float32")
outputs = {
    name: [np.asarray(value) for value in five_layers(*pair)(numbers)]
    for name, pair in pairs.items()
}

# %%
figure, panels = figures.axes(5, 5, width=1.9, height=1.35)
for row, (name, values) in zip(panels.reshape(5, 5), outputs.items()):
    limits = (0, 1) if "sigmoid" in name else (0, 3)
    for panel, value in zip(row, values):
        panel.hist(np.clip(value.ravel(), *limits), bins=30, range=limits, color="0.35")
        panel.set(yticks=[])
        panel.tick_params(labelsize=7)
    row[0].set_ylabel(name.replace(", ", "\n"), fontsize=7)
for depth, (top, bottom) in enumerate(zip(panels[:5], panels[-5:]), start=1):
    top.set_title(f"layer {depth}", fontsize=8)
    bottom.set_xlabel("output", fontsize=7)
figures.show(
    figure, "Outputs of five layers, five pairs (rows); values above 3 are in the last bar."
)

# %% [markdown]
# A histogram mixes units and examples. The table keeps them apart: the size of a layer's outputs, and
# how much the output of a unit differs from one *example* to the next.

# %%
rows = {}
for name, values in outputs.items():
    rows[name, "size (root mean square)"] = [np.sqrt(np.mean(v**2)) for v in values]
    rows[name, "difference between examples"] = [v.std(axis=0).mean() for v in values]
pd.DataFrame(rows, index=[f"layer {depth}" for depth in range(1, 6)]).T.round(4)

# %% [markdown]
# **What happened, and why.**
#
# - Row 1 of the figure: the sums are so large that most sigmoids sit at 0 or 1, where the slope is almost 0. The large
#   weights make up for it, so a gradient does pass, but only through the few units in between: most units learn almost
#   nothing from an example.
# - Row 2: all outputs are nearly 0.5, whatever the input was. On the way back the gradient shrinks to about a fortieth
#   in every layer: slope ¼, and 100 weights of 0.01 add up to a tenth.
# - Row 3: the outputs are spread, but from unit to unit. From example to example they differ less in
#   every layer, because the slope of a sigmoid is at most 0.25, and Glorot reckons with slope 1 (tanh).
# - Row 4: the mean square is halved in every layer. Row 5: He keeps it. Even then the examples become
#   more alike, since outputs of ReLU are never negative and so have a part in common.
#
# > **Note on the book.** It calls σ = 0.01 better than σ = 1, since it counts slopes only. It recommends Glorot for the
# > sigmoid because of the histogram, which mixes units and examples. It draws all histograms over [0, 1], which cuts ReLU off, and gives one
# > initialiser object to all layers: in Keras 3 such layers would start with identical weights.
# > Here every layer gets a fresh one.
#
# ## 4. Batch normalisation
#
# A good start does not last: the weights change. *Batch normalisation* (Ioffe and Szegedy, 2015)
# brings the sums of each channel back to mean 0 and variance 1 at every step: over the $n$ values that
# the channel has in a batch it computes mean and variance, standardises, and then lets the network
# choose another size $\gamma$ and place $\beta$, which are learned:
#
# $$\mu = \frac1n \sum_i x_i, \quad \sigma^2 = \frac1n \sum_i (x_i - \mu)^2, \quad
#   \hat x_i = \frac{x_i - \mu}{\sqrt{\sigma^2 + \epsilon}}, \quad y_i = \gamma \hat x_i + \beta.$$
#
# To predict *one* image there is no batch. So the layer keeps a running mean of $\mu$ and
# $\sigma^2$ while it trains, and uses these when it predicts: the same layer computes two different
# things.

# %% tags=["nbval-check-output"]
batch = np.random.default_rng(1).normal(3.0, 2.0, size=(8, 4)).astype("float32")
layer = layers.BatchNormalization(momentum=0.9)
by_hand = (batch - batch.mean(axis=0)) / np.sqrt(batch.var(axis=0) + layer.epsilon)
print("training agrees:", np.allclose(layer(batch, training=True), by_hand, atol=1e-4))
print("running mean:   ", np.allclose(layer.moving_mean, 0.1 * batch.mean(axis=0), atol=1e-5))
moved = (batch - layer.moving_mean) / np.sqrt(layer.moving_variance + layer.epsilon)
print("prediction uses it:", np.allclose(layer(batch, training=False), moved, atol=1e-4))

# %% [markdown]
# What it does to a deep network that starts badly (tanh, σ = 1):


# %%
def deep_tanh(batch_norm):
    """Return the outputs of five tanh layers that start with σ = 1."""
    keras.utils.set_random_seed(run.seed)
    hidden, outputs = numbers, []
    for _ in range(5):
        hidden = layers.Dense(100, use_bias=False, kernel_initializer=normal(stddev=1.0))(hidden)
        if batch_norm:
            hidden = layers.BatchNormalization()(hidden, training=True)
        hidden = keras.ops.tanh(hidden)
        outputs.append(np.asarray(hidden))
    return outputs


figure, panels = figures.axes(2, 5, width=1.9, height=1.4)
for row, batch_norm in zip(panels.reshape(2, 5), [False, True]):
    for depth, (panel, value) in enumerate(zip(row, deep_tanh(batch_norm)), start=1):
        panel.hist(value.ravel(), bins=30, range=(-1, 1), color="0.35")
        panel.set(yticks=[], xlabel="" if not batch_norm else f"output of layer {depth}")
    row[0].set_ylabel("with batch norm" if batch_norm else "without")
figures.show(figure, "Five tanh layers with large weights: flat at ±1 without, spread out with it.")

# %% [markdown]
# The layer stands between the sum and the activation, and makes the bias of the sum superfluous
# ($\beta$ takes its place, so `use_bias=False`). It allows higher learning rates and makes the start
# matter less. It works against overfitting a little: in training, the output for an image depends a
# little on the other images of its batch, which are drawn at random. *Why* it helps is still disputed:
# the first explanation (a layer's inputs keep shifting) was not confirmed by experiments
# (Santurkar et al., 2018).
#
# > **Note on the book.** It writes α for the scale; γ is usual. It says that dropout is no longer needed,
# > but its network keeps it. We keep it, too, to change one thing at a time.
#
# ## 5. Experiment 1 · Three initialisers on CIFAR-10
#
# ### 5.1 Prepare the data
#
# As in lab 4: 45,000 photos for training, 5,000 for validation, 10,000 for the test (in `quick` 2,160, 240 and 500). The
# training images are flipped and shifted at random. The values lie in [0, 1].

# %%
dataset = run.scale(quick="cifar10_sample", standard="cifar10", full="cifar10")
(train, validation, test), info = tfds.load(
    dataset, split=["train[:90%]", "train[90%:]", "test"],
    data_dir=data.tfds_dir(dataset), with_info=True,
)  # fmt: skip
batch_size = run.scale(quick=32, standard=64, full=64)
training = {"shuffle": True, "augment": [flip, random_crop], "seed": run.seed}
train_batches = image_batches(train, batch_size, **training)
validation_batches, test_batches = image_batches(validation), image_batches(test)
print([int(part.cardinality()) for part in (train, validation, test)])

# %% [markdown]
# ### 5.2 Build and train
#
# The convolutional network of lab 4. The initialiser is chosen for the five convolutions and the
# hidden dense layer; the output layer keeps Keras' default. With `batch_norm`, for Experiment 2, a
# normalisation stands between each sum and its ReLU. With `centred`, the network begins by moving the
# values to [−1, 1], as in lab 4; the book leaves them in [0, 1].


# %% tags=["definition"]
INITIALIZERS = {
    "normal_001": lambda: keras.initializers.RandomNormal(stddev=0.01),
    "glorot": keras.initializers.GlorotNormal,
    "he": keras.initializers.HeNormal,
}


def make_cnn(initializer, batch_norm=False, centred=False, share=1.0, momentum=0.99, name="cnn"):
    """Return the CNN of lab 4 with the named initialiser: (32, 32, 3) -> 10 probabilities."""

    def activated(layer):
        normalised = [layers.BatchNormalization(momentum=momentum)] if batch_norm else []
        return [layer, *normalised, layers.ReLU()]

    def options():  # every layer gets an initialiser of its own
        return {"kernel_initializer": INITIALIZERS[initializer](), "use_bias": not batch_norm}

    widths = [int(width * share) for width in (64, 128, 256, 128, 64)]
    centre = [layers.Rescaling(2.0, offset=-1.0)] if centred else []
    stack = [keras.Input((32, 32, 3)), *centre]
    stack += [*activated(layers.Conv2D(widths[0], 3, **options())), layers.MaxPooling2D()]
    for width in widths[1:]:
        stack += activated(layers.Conv2D(width, 3, **options()))
    stack += [layers.Flatten(), *activated(layers.Dense(64, **options())), layers.Dropout(0.5)]
    stack.append(layers.Dense(10, activation="softmax", dtype="float32"))
    return keras.Sequential(stack, name=name)


# %% tags=["nbval-check-output"]
for batch_norm in (False, True):
    model = make_cnn("glorot", batch_norm)
    fixed = sum(int(np.prod(w.shape)) for w in model.non_trainable_weights)
    print(f"{model.count_params():,} parameters, {fixed:,} of them running means and variances")

# %% [markdown]
# > **Note on the book.** With batch normalisation its network has 943,882: it keeps the biases that
# > $\beta$ makes superfluous.
#
# What would He choose for each layer, and how many times larger is that than 0.01? (For the full width. `quick` trains a
# quarter of it; there the ratios from the second layer on are twice as large.)

# %% tags=["nbval-check-output"]
print("kernel               He's σ  ratio to 0.01")
for layer in make_cnn("he").layers[:-1]:
    if hasattr(layer, "kernel"):
        sigma = np.sqrt(2 / np.prod(layer.kernel.shape[:-1]))
        print(f"{tuple(layer.kernel.shape)!s:19} {sigma:7.3f} {sigma / 0.01:14.1f}")

# %% [markdown]
# How large are the signal on its way forward and the gradient on its way back, in the very first
# step? For each of the five convolutions: how much its output differs from image to image, and the
# size of the gradient of its kernel.


# %% tags=["definition"]
def signal_and_gradient(model, images, labels):
    """Return, for each convolution, the spread of its output and the size of its gradient."""
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    inside = keras.Model(model.inputs, [*(c.output for c in convolutions), model.outputs[0]])
    with tf.GradientTape() as tape:
        *maps, predicted = inside(images)
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(labels, predicted))
    gradients = tape.gradient(loss, [c.kernel for c in convolutions])
    sizes = [float(tf.sqrt(tf.reduce_mean(tf.square(g)))) for g in gradients]
    return [float(tf.reduce_mean(tf.math.reduce_std(m, axis=0))) for m in maps], sizes


# %%
images, labels = next(iter(image_batches(validation)))
figure, panels = figures.axes(1, 2, width=4.2)
for name in INITIALIZERS:
    keras.utils.set_random_seed(run.seed)
    for panel, values in zip(panels, signal_and_gradient(make_cnn(name), images, labels)):
        panel.semilogy(range(1, 6), values, marker="o", label=name)
panels[1].axhline(1e-7, color="0.3", linestyle=":")
panels[1].text(5, 1.2e-7, "Adam's ε", ha="right")
panels[0].set(xlabel="convolution", ylabel="spread between images")
panels[1].set(xlabel="convolution", ylabel="gradient (root mean square)")
panels[0].legend()
figures.show(figure, "Before the first step: signal (left) and gradient (right), layer by layer.")

# %% [markdown]
# Adam divides the gradient by its usual size plus $\epsilon = 10^{-7}$. So a small gradient makes small
# steps only where it comes near that line: above it, every weight moves by about the learning rate in
# each step, however small its gradient is.
#
# So the length of the first steps may count as much as the start. Two recipes:
#
# - *as in the book*: values in [0, 1], and Adam with a rate of 0.001 from the first step on;
# - *gentle*, as in lab 4: values in [−1, 1], and one cycle. The rate begins at 0.00015, climbs to 0.0015,
#   and falls to 0.
#
# Both soften the targets by 10 % as in lab 4, and choose the epoch by the validation loss. A training
# whose loss has not fallen for three epochs is stopped.


# %% tags=["definition"]
def train_network(model, batches, validation_batches, epochs, rate=None, watch=()):
    """Compile and fit a network; it ends as it was in its best epoch; return its history.

    `rate` is the learning rate; without it, the rate is that of one cycle.
    """
    model.compile(
        keras.optimizers.Adam(rate or schedules.one_cycle(1.5e-3, epochs * len(batches))),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["accuracy"],
        jit_compile=run.jit_compile,
    )  # fmt: skip
    best = keras.callbacks.EarlyStopping("val_loss", patience=1000, restore_best_weights=True)
    stuck = keras.callbacks.EarlyStopping("loss", patience=3, min_delta=1e-3)
    history = model.fit(
        batches, validation_data=validation_batches, epochs=epochs, verbose=0, shuffle=False,
        callbacks=run.callbacks(model.name, best, stuck, *watch, data=batches),
    )  # fmt: skip
    print(
        f"{model.name}: {history.seconds:.0f} s, {len(history.epoch)} epochs of {epochs}, "
        f"best after epoch {best.best_epoch + 1}"
    )
    return history.history


# %% [markdown]
# One more instrument. A unit of ReLU whose input is negative for every image has slope 0 for all of them:
# it is *dead*, and no gradient passes it. This callback counts, after some of the first steps,
# which share of the channels of each convolution is still alive on 500 validation images (all 240 in `quick`):


# %% tags=["definition"]
class Alive(keras.callbacks.Callback):
    """Share of channels with an output above 0: `shares`, a list for each of the steps `seen`."""

    def __init__(self, images, steps=(0, 10, 20, 40, 70, 100, 200)):
        super().__init__()
        self.images, self.steps, self.seen, self.shares = images, steps, [], []

    def on_train_begin(self, logs=None):
        outputs = [layer.output for layer in self.model.layers if isinstance(layer, layers.ReLU)]
        self.inside = keras.Model(self.model.inputs, outputs[:5])
        self.count()

    def on_train_batch_end(self, batch, logs=None):
        self.count()

    def count(self):
        step = int(self.model.optimizer.iterations)
        if step in self.steps:
            maps = [np.reshape(m, (-1, m.shape[-1])) for m in self.inside(self.images)]
            self.seen.append(step)
            self.shares.append([float((m > 0).any(axis=0).mean()) for m in maps])


# %% [markdown]
# First, only a few steps, all *as in the book*. **Predict first:** which of the three networks will lose channels,
# and will they come back?

# %%
share = run.scale(quick=0.25, standard=1.0, full=1.0)


def new_network(initializer, name, **options):
    """Return an untrained network of `make_cnn`, from the seed of this run."""
    keras.utils.set_random_seed(run.seed)
    with run.fast():
        return make_cnn(initializer, share=share, name=name, **options)


as_in_book = {name: Alive(images) for name in INITIALIZERS}
first_steps = train_batches.repeat().take(run.scale(quick=100, standard=200, full=200))
for name, watch in as_in_book.items():
    network = new_network(name, f"{name}_first_steps")
    train_network(network, first_steps, validation_batches, 1, 1e-3, [watch])


# %%
def show_alive(alive, caption):
    """Plot the share of living channels against the step, a panel for each training."""
    figure, panels = figures.axes(1, len(alive), width=3.0, height=2.6)
    for panel, (name, counted) in zip(panels, alive.items()):
        for depth, values in enumerate(zip(*counted.shares), start=1):
            panel.plot(counted.seen, values, marker="o", label=f"convolution {depth}")
        panel.set(title=name, xlabel="step", ylabel="channels alive", ylim=(-0.05, 1.05))
    panels[0].legend(fontsize=7)
    figures.show(figure, caption)


show_alive(as_in_book, "Share of living channels in the first steps, with the recipe of the book.")

# %% [markdown]
# **What happened, and why.** Standard deviation 0.01 is too small for each of the six layers that start with it: each
# layer makes the signal smaller by the ratio in the table of 5.2, and in the fifth convolution all images
# look nearly the same. So the first gradients say little about the images; they follow what all images have
# in common, and the luck of the batch. But Adam makes up for a gradient that is small: each weight moves
# by about 0.001 a step, a tenth of σ. After a few dozen steps the weights are made of such pushes, and
# channel after channel lies below 0 for every image.
#
# Glorot and He start with a living signal, and with weights beside which the same steps are small. Yet
# they lose channels of the late layers, too, within the first steps, and not all come back. That would be a
# poor start for a comparison. So we let σ = 0.01 go on as it began, and train all three gently. (For
# σ = 0.01 that is a side show: it gets fewer epochs.) **Predict first:** which of the four will learn, and
# which will learn best?

# %%
epochs = run.scale(quick=3, standard=13, full=60)
gentle = {"centred": True}
trainings = {  # name -> initialiser, options of the network, epochs, learning rate
    "normal_001": ("normal_001", {}, epochs, 1e-3),
    "normal_001_gentle": ("normal_001", gentle, run.scale(quick=3, standard=4, full=12), None),
    "glorot": ("glorot", gentle, epochs, None),
    "he": ("he", gentle, epochs, None),
}
histories, rows, watches = {}, {}, {}
for name, (initializer, options, n_epochs, rate) in trainings.items():
    model, watches[name] = new_network(initializer, name, **options), Alive(images)
    histories[name] = train_network(
        model, train_batches, validation_batches, n_epochs, rate, [watches[name]]
    )
    _, accuracy = model.evaluate(test_batches, verbose=0)
    predicted = np.concatenate([model(images) for images, _ in validation_batches])
    rows[name] = {
        "test accuracy": accuracy,
        "spread of the predictions": predicted.std(axis=0).mean(),
    }
    run.record(**{f"accuracy_{name}": accuracy})

# %% [markdown]
# ### 5.3 Show the results

# %%
two_metrics = ["accuracy", "val_accuracy"]
axis_labels = {"accuracy": "accuracy while training", "val_accuracy": "validation accuracy"}
figures.curves(
    histories, two_metrics, labels=axis_labels,
    caption="Three initialisers, one of them with two recipes: accuracy, epoch by epoch.",
)  # fmt: skip

# %% [markdown]
# The last column of the table is the standard deviation of a predicted probability between the
# validation images: 0 means that every image gets the same answer.

# %%
pd.DataFrame.from_dict(rows, orient="index").round(4)

# %%
shown = {name: watches[name] for name in ("normal_001_gentle", "glorot", "he")}
show_alive(shown, "Share of living channels in the first steps, with the gentle recipe.")

# %% [markdown]
# **What happened, and why.** `normal_001` gives every image the same answer, and no later step changes
# that: where the last channel of a layer has died, the gradient of all that stands before it is exactly
# 0. What is left can only learn how frequent the classes are: 10 % each.
#
# On the whole data set, the same start with the gentle recipe keeps most channels alive, and learns. (It had
# fewer epochs, and its rate has fallen to 0 at their end: do not compare its accuracy directly with the others. A likely reason: pushes by the luck of the batch cancel over many short steps, and
# what all images have in common is less when their values lie around 0. In `quick` the cycle is so short
# that its steps grow long at once, and the channels die again.) So the 10 % is not a property of σ = 0.01 alone: it belongs to the whole recipe, and above
# all to the size of the first steps beside that of the weights. The cure at the root is still a start that
# fits: Glorot and He learn from the first epoch on. Whether the difference between these two is more than
# luck, one training cannot say.
#
# **Try this:** the gentle recipe changes two things. Train σ = 0.01 with `centred` but the rate 0.001, and
# the other way round. Does one of them suffice?
#
# > **Note on the book.** It compares all three with its own recipe, over 100 epochs. Its
# > histograms of Model-1 hardly change in that time: as they must, when a layer is dead. Its conclusion
# > calls the network with the normal distribution Model-3; it is Model-1. It puts He before Glorot on one training each; our
# > single trainings came out the other way round.
#
# ## 6. Experiment 2 · Batch normalisation
#
# Data as in Experiment 1, with the gentle recipe. (The book's Model-4 starts with Glorot uniform, ours with Glorot normal, like
# the network that we compare it with. And a running mean with Keras' momentum of 0.99 reaches back over
# about a hundred steps, which is much of the whole training in `quick`: there we take 0.9.)
#
# **Predict first:** the same network with batch normalisation and Glorot: how many epochs until it is as
# good as the networks above at their end?

# %%
momentum = run.scale(quick=0.9, standard=0.99, full=0.99)
model = new_network("glorot", "batchnorm", batch_norm=True, momentum=momentum, **gentle)
histories["batchnorm"] = train_network(model, train_batches, validation_batches, epochs)
run.record(accuracy_batchnorm=model.evaluate(test_batches, verbose=0)[1])

# %%
figures.curves(
    {name: histories[name] for name in ("glorot", "he", "batchnorm")}, two_metrics,
    labels=axis_labels, caption="With and without batch normalisation: accuracy, epoch by epoch.",
)  # fmt: skip

# %% [markdown]
# **What happened, and why.** Only batch normalisation was added (and the biases that β replaces left
# out). On the whole data set this network learns faster from the first epoch on and ends higher; while the
# steps are long, its validation accuracy wavers, perhaps because the running means lag behind. At
# every step the sums of each channel have the size that the next layer is ready for, so no layer must
# wait until those before it have found theirs; and the chance of the batch works against overfitting.
# How much each of the two contributes, this experiment cannot say.
#
# > **Note on the book.** It evaluates this network as it was after its last epoch, the others as they
# > were in their best one; here all are treated alike. It logs no histograms for Model-4, and prints
# > 0.8593 with a percent sign. (It starts TensorBoard with two folders after `--logdir`; a parent folder does.)
#
# TensorBoard shows the curves of all networks; lab 7 shows histograms of their weights.

# %%
run.tensorboard()

# %% [markdown]
# ## 7. Further · Experiment 3: as fast as the machine allows
#
# The book needs 100 epochs for its best network. How much better, and how much faster, can it be done
# on an ordinary processor? The recipe below is ours, after Jordan (2024), who trains on a GPU. It is a
# collection of small ideas, and each one has a reason:
#
# | idea | reason |
# |---|---|
# | three blocks* | each block pools after its first convolution: most of the arithmetic is done where the picture is small |
# | whitening stem | the first layer makes its inputs uncorrelated; its kernel is computed, not learned |
# | start as identity | each kernel passes as many channels on as fit: the signal lives from the first step |
# | fused operation | batch normalisation as one operation in place of many |
# | fast shift | β moves quickly: units whose input is mostly negative come back soon |
# | large batches with SGD* | few, large steps use the processor better |
# | one cycle | long steps early, short ones at the end |
# | label smoothing | the network is not pushed towards probabilities of exactly 0 and 1 |
# | flip and crop | 162 versions of each image: harder to learn by heart |
# | weight averaging | the mean of the last weights is calmer than the last ones |
# | mirrored view | the mean over an image and its mirror image errs less |
#
# The gain of each is measured in 7.4, except for the two with a star.
#
# ### 7.1 Prepare the data
#
# What is chosen is chosen on the validation images (7.4). The final network then learns from all
# 50,000 training images (in `quick` 2,400); the book's networks learned from 45,000.


# %% tags=["definition"]
FAST_BATCH_SIZE, FAST_EPOCHS = 256, 18


def fast_batches(examples, batch_size=FAST_BATCH_SIZE, augment=True):
    """Return training batches: shuffled, flipped and shifted by up to four pixels."""
    changes = [flip, random_crop] if augment else []
    return image_batches(examples, batch_size, True, changes, run.seed)


def some_images(examples, n=2000):
    """Return the first `n` images as an array, (n, 32, 32, 3), values in [0, 1]."""
    images = [example["image"] for example in examples.take(n).as_numpy_iterator()]
    return np.stack(images) / np.float32(255)


# %%
all_training = train.concatenate(validation)
fast_size = run.scale(quick=64, standard=FAST_BATCH_SIZE, full=FAST_BATCH_SIZE)
train_fast_batches = fast_batches(all_training, fast_size)
first_images = some_images(all_training)

# %% [markdown]
# ### 7.2 Build and train
#
# A 2 × 2 patch of a photo is 12 numbers: 4 pixels × 3 colours. They resemble each other. Let $C = V
# \Lambda V^\top$ be their covariance, with the eigenvectors in $V$. *Whitening* computes
#
# $$y = (\Lambda + \epsilon)^{-1/2}\, V^\top x, \qquad
#   \operatorname{Cov}(y) = \Lambda (\Lambda + \epsilon)^{-1},$$
#
# which is close to the identity: 12 uncorrelated numbers. The weakest directions stay smaller, since
# $\epsilon$ keeps their noise from being blown up. Each kernel comes with its negative as well, since
# ReLU drops one side.


# %% tags=["definition"]
def whitening_kernel(images, size=2, epsilon=5e-4):
    """Return kernels that decorrelate patches: (n, h, w, 3) -> (size, size, 3, 6 size²).

    The images have mean 0 in each channel.
    """
    patches = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * 3)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    kernels = (vectors / np.sqrt(values + epsilon)).reshape(size, size, 3, -1)
    return np.concatenate([kernels, -kernels], axis=-1).astype("float32")


# %% [markdown]
# Does it do what it promises? The network standardises each colour first; so do we.

# %%
standardised = (first_images - first_images.mean(axis=(0, 1, 2))) / first_images.std(axis=(0, 1, 2))
whitened = keras.ops.conv(standardised[:500], whitening_kernel(standardised)[..., :12])
patches = tf.image.extract_patches(standardised[:500], [1, 2, 2, 1], [1] * 4, [1] * 4, "VALID")
figure, panels = figures.axes(1, 2, width=2.6, height=2.4)
for panel, values, title in zip(panels, (patches, whitened), ("patches", "after whitening")):
    covariance = np.cov(np.reshape(values, (-1, 12)).T)
    picture = panel.imshow(covariance, vmin=-1, vmax=1, cmap="gray")
    panel.set(title=title, xlabel="number", ylabel="number", xticks=[0, 4, 8], yticks=[0, 4, 8])
    panel.grid(False)
figure.colorbar(picture, ax=panels, label="covariance")
figures.show(
    figure, "Twelve numbers of a patch are strongly correlated; after whitening, not at all."
)

# %% [markdown]
# Keras builds batch normalisation from many small operations. TensorFlow also has it as a single one,
# which passes over the data fewer times. This layer uses it. It leaves out $\gamma$: for $\gamma > 0$,
# $\operatorname{ReLU}(\gamma \hat x + \beta) = \gamma \operatorname{ReLU}(\hat x + \beta / \gamma)$, and
# the layer *after* it can multiply by $\gamma$. And it lets $\beta$ take steps 64 times as long: the
# factor 8 multiplies its gradient, and once more the effect of each of its steps. So units whose input is
# mostly negative come back soon; this is a trick of Jordan's, and the study says whether it helps.


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class FusedBatchNormalization(layers.Layer):
    """Batch normalisation without γ in one operation: (batch, height, width, channels) -> same."""

    def __init__(self, momentum=0.8, epsilon=1e-5, shift_speed=8.0, **options):
        super().__init__(**options)
        self.momentum, self.epsilon, self.shift_speed = momentum, epsilon, shift_speed

    def build(self, shape):
        float32 = {"shape": (shape[-1],), "autocast": False, "dtype": "float32"}
        fixed = float32 | {"trainable": False}
        self.beta = self.add_weight(name="beta", initializer="zeros", **float32)
        self.mean = self.add_weight(name="mean", initializer="zeros", **fixed)
        self.variance = self.add_weight(name="variance", initializer="ones", **fixed)

    def call(self, x, training=False):
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=tf.ones_like(self.beta), offset=self.shift_speed * self.beta,
            mean=self.mean, variance=self.variance, epsilon=self.epsilon,
            exponential_avg_factor=1 - self.momentum, is_training=bool(training),
        )  # fmt: skip
        if training:
            self.mean.assign(mean)
            self.variance.assign(variance)
        return y

    def get_config(self):
        own = {name: getattr(self, name) for name in ("momentum", "epsilon", "shift_speed")}
        return super().get_config() | own


# %% [markdown]
# The other start: at the beginning, a convolution passes its input on as it is, in as many channels as
# fit. The rest of its kernel is random.


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
def identity_start(shape, dtype=None):
    """Return a kernel whose first channels pass their input on, the others random."""
    fan_in = np.prod(shape[:3])
    kernel = keras.random.uniform(shape, -(fan_in**-0.5), fan_in**-0.5, dtype=dtype)
    same = np.zeros(shape, "float32")
    n = min(shape[2:])
    same[shape[0] // 2, shape[1] // 2, range(n), range(n)] = 1.0
    return keras.ops.where(np.arange(shape[3]) < n, same, kernel)


# %% [markdown]
# Now the network. The numbers follow Jordan's recipe; the factor 1/9 keeps the first logits (the numbers before softmax) small.


# %% tags=["definition"]
def make_fast(
    images, share=1.0, whiten=True, identity=True, fused=True, shift_speed=8.0, name="fast"
):
    """Return three blocks of two convolutions: (32, 32, 3) in [0, 1] -> 10 logits."""

    def normalization():
        if fused:
            return FusedBatchNormalization(shift_speed=shift_speed)
        return layers.BatchNormalization(momentum=0.8, epsilon=1e-5, scale=False)

    mean, variance = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    kernel = whitening_kernel((images - mean) / np.sqrt(variance))
    inputs = keras.Input((32, 32, 3))
    x = layers.Normalization(mean=mean, variance=variance, dtype="float32")(inputs)
    stem = layers.Conv2D(kernel.shape[-1], kernel.shape[0], use_bias=False, name="stem")
    x = keras.activations.relu(stem(x))
    if whiten:  # nothing to learn here: the way back ends one layer earlier
        stem.kernel.assign(kernel)
        stem.trainable = False
    start = identity_start if identity else "he_normal"
    for width in (64, 256, 256):
        for pool in (True, False):
            x = layers.Conv2D(
                int(width * share), 3, padding="same", use_bias=False, kernel_initializer=start
            )(x)
            x = layers.MaxPooling2D()(x) if pool else x
            x = keras.activations.relu(normalization()(x))
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(10, use_bias=False, dtype="float32")(x)
    return keras.Model(inputs, layers.Rescaling(1 / 9, dtype="float32")(x), name=name)


# %% tags=["nbval-check-output"]
model = make_fast(first_images[:100])
stem = model.get_layer("stem").kernel.shape
print(f"{model.count_params():,} parameters, stem: {stem[-1]} kernels of {tuple(stem[:-1])}")

# %% [markdown]
# The weights jump about while the learning rate is high. An exponential mean over the last few per cent
# of the steps is calmer, and costs little. Keras' optimisers keep one when told so (`use_ema`), and put
# it in place when `fit` ends. (The statistics of batch normalisation are not averaged; that is
# harmless where the rate ends near 0.)


# %% tags=["definition"]
def train_fast(
    model, batches, epochs, batch_size=FAST_BATCH_SIZE,
    smoothing=0.2, one_cycle=True, average=True, callbacks=(),
):  # fmt: skip
    """Compile and fit with large steps; return the history, which knows its seconds."""
    peak, steps = 1.5 * batch_size / 1024, epochs * len(batches)
    model.compile(
        keras.optimizers.SGD(
            schedules.one_cycle(peak, steps) if one_cycle else 0.2 * peak,
            momentum=0.85, nesterov=True, weight_decay=0.009,
            use_ema=average, ema_momentum=1 - 1 / max(2, steps // 30),  # the last 3 %
        ),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
        metrics=["accuracy"], jit_compile=run.jit_compile,
    )  # fmt: skip
    return model.fit(
        batches, epochs=epochs, verbose=0, shuffle=False,
        callbacks=run.callbacks(model.name, *callbacks, data=batches),
    )  # fmt: skip


# %% [markdown]
# A photo and its mirror image show the same thing, but the network's ten numbers for them differ a
# little. Their mean over these two *views* costs a second prediction and no training:


# %% tags=["definition"]
from time import perf_counter


def predict_views(model, batches, mirror=True):
    """Return the logits of all images, (n, 10), with `mirror` the mean over two views of each."""
    logits = []
    for images, _ in batches:
        views = [images, tf.reverse(images, axis=[2])] if mirror else [images]
        logits.append(sum(model(view, training=False) for view in views) / len(views))
    return np.concatenate(logits)


def accuracy_of_views(model, batches, mirror=True):
    """Return the accuracy of `predict_views` on batches in a fixed order, and its seconds."""
    begin = perf_counter()
    predicted = predict_views(model, batches, mirror).argmax(axis=1)
    seconds = perf_counter() - begin
    labels = np.concatenate([np.argmax(y, axis=1) for _, y in batches])
    return float(np.mean(predicted == labels)), seconds


# %% [markdown]
# First, a race with the book: how long until its best accuracy? We shorten the whole cycle to a few epochs.
# **Predict first:** how many epochs of the hundred are enough?

# %%
keras.utils.set_random_seed(run.seed)
epochs_short = run.scale(quick=1, standard=4, full=4)
with run.fast():
    short = make_fast(first_images, share, name="short")
history = train_fast(short, train_fast_batches, epochs_short, fast_size)
accuracy_short, seconds = accuracy_of_views(short, test_batches)
run.record(accuracy_short=accuracy_short, seconds_to_book_best=history.seconds + seconds)
print(f"epochs: {epochs_short}, {history.seconds + seconds:.0f} s: {accuracy_short:.1%}")
print(f"the book's best network, epochs: 100: {run.book['accuracy_batchnorm']:.1%}")

# %% [markdown]
# The seconds are recorded as `seconds_to_book_best`; they count only where `accuracy_short` reaches the
# book's accuracy. Now the whole recipe, with more epochs and nothing else changed.

# %%
keras.utils.set_random_seed(run.seed)
epochs_fast = run.scale(quick=2, standard=FAST_EPOCHS, full=FAST_EPOCHS)
with run.fast():
    fast = make_fast(first_images, share)
history = train_fast(fast, train_fast_batches, epochs_fast, fast_size)
accuracy_one_view, _ = accuracy_of_views(fast, test_batches, mirror=False)
accuracy_live, seconds = accuracy_of_views(fast, test_batches)
run.record(accuracy_fast_one_view=accuracy_one_view, accuracy_fast_this_seed=accuracy_live)
print(f"{history.seconds + seconds:.0f} s: {accuracy_one_view:.1%}, two views {accuracy_live:.1%}")

# %% [markdown]
# ### 7.3 Show the results
#
# One training has luck in it. The study `labs/studies/05_fast.py` trained this network with three
# seeds; the table shows all three, and their medians stand in section 8. The seconds are those of the training on
# the machine named there, the views included.

# %%
studied = results.study("05_fast")
assert len(studied) == 3, "measure the study: python -m tools.study 05_fast"
final = pd.DataFrame([{**row["settings"], **row["metrics"]} for row in studied])
run.record(accuracy_fast=final.accuracy.median(), seconds_fast=final.seconds.median())
print(studied[0]["machine"]["processor"], studied[0]["numerics"])
final.set_index("seed")[["epochs", "accuracy_one_view", "accuracy", "seconds"]].round(4)

# %% [markdown]
# ### 7.4 What is each idea worth?
#
# **Predict first:** which single idea could be left out with the least harm, and which with the most?
#
# The study `labs/studies/05_ideas.py` leaves out one idea at a time, at a smaller scale: half the
# channels, few epochs, the 45,000 training images, three seeds each. It looks at the validation images
# only. The gain of an idea is the difference *with* minus *without* of two trainings with the same seed,
# so the luck of the order cancels in part; its spread is that of the three differences. **A gain within
# the spread is not proved.** Two limits:
#
# - Without the fused operation, β has no fast shift either: the effect of the operation alone is the
#   difference of these two rows.
# - Without one cycle the rate is constant, a fifth of the peak: this number is not tuned, and the weights
#   are averaged all the same.

# %%
studied = results.study("05_ideas")
table = pd.DataFrame([{**row["settings"], **row["metrics"]} for row in studied])
complete = bool(studied) and (table.without.value_counts() == 3).all()
assert complete, "measure the study: python -m tools.study 05_ideas"
accuracies = table.pivot(index="seed", columns="without", values="accuracy")
epoch_seconds = table.pivot(index="seed", columns="without", values="seconds_of_epoch")
gains = -accuracies.drop(columns="nothing").sub(accuracies["nothing"], axis=0)
saved = epoch_seconds.drop(columns="nothing").sub(epoch_seconds["nothing"], axis=0)
everything = table[table.without == "nothing"].set_index("seed")
gains["mirrored view"] = everything.accuracy - everything.accuracy_one_view
saved["mirrored view"] = everything.seconds_of_view - everything.seconds_of_views

# %% [markdown]
# *Seconds saved* is per epoch, the first not counted, as the median of three seeds; for the mirrored view, per prediction of
# the validation images.

# %%
ideas = pd.DataFrame({"gain in accuracy": gains.mean(), "spread": gains.std()})
ideas["seconds saved"] = saved.median()
ideas = ideas.sort_values("gain in accuracy", ascending=False).round(4)
ideas.rename(index={"mirrored view": "mirrored view (seconds: per prediction)"})

# %%
figure, (panel,) = figures.axes(width=6, height=3)
order = gains.mean().sort_values().index
for place, idea in enumerate(order):
    panel.plot(gains[idea], [place] * len(gains), "o", color="0.5", markersize=5)
    panel.plot(gains[idea].mean(), place, "D", color="black", markersize=7)
panel.axvline(0, color="0.3", linestyle="--")
panel.set(yticks=range(len(order)), yticklabels=order, xlabel="gain in validation accuracy")
figures.show(
    figure, "Gain of each idea: one dot for each seed, a diamond for the mean; 0 is no gain."
)

# %% [markdown]
# **What happened, and why.** One cycle is worth more than all other ideas together: long steps early, and
# short ones at the end to settle. (A part of that is the constant rate, which was not tuned.) Next come the
# two ideas about the start: with so few epochs, what need not be learned is time won. The mirrored view
# gives nearly as much, and costs no training at all. Fast shift: a little, hardly more than its spread. (The row of the fused
# operation contains the fast shift; the operation alone gains no accuracy, as it should be.) The fused operation, and the
# stem that has nothing to learn, were put there for their seconds; the three seeds do not agree on how many.
#
# The other three are *not proved* at this scale. Label smoothing and averaging gain nothing beyond the
# spread; flip and crop even cost accuracy with some seeds. Five epochs are too few to learn an image by
# heart, and altered images are harder to learn; lab 4 shows what they are worth in a longer training. We
# keep all three in the long one, but this table does not say that we must. **A gain belongs to the scale
# that it was measured at.** And the seconds have a spread of their own: those of one seed may come from
# whatever else the machine did.
#
# ## 8. Results
#
# Accuracy on the test images. The book trained 100 epochs with its own augmentation. `quick` uses a small
# sample and narrow networks; its numbers cannot be compared with the book's. `accuracy_fast` and
# `seconds_fast` are the study's medians of three seeds, the same in every profile; what was trained here
# and now is `accuracy_fast_this_seed`. What has no number of the book is ours.

# %%
run.table()

# %% [markdown]
# ## 9. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · Backpropagation with ReLU
#
# The network of section 1, with ReLU in the hidden layer and no activation at the output:
# $\hat y = w_2 \max(0, w_1 x)$, $L = (y - \hat y)^2$. Return both derivatives.


# %% nbgrader={"grade": false, "grade_id": "gradients", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def gradients(x, y, w1, w2):
    """Return the pair (∂L/∂w1, ∂L/∂w2) as numbers."""
    ### BEGIN SOLUTION
    hidden = max(0.0, w1 * x)
    outside = -2 * (y - w2 * hidden)
    return outside * w2 * (w1 * x > 0) * x, outside * hidden
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "gradients_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(gradients) as check:
    answer = gradients(0.5, 3.0, 2.0, 0.5)
    check(None if answer is None else len(answer), 2, "return two numbers: for w1 and for w2")
    check(answer[1], -5.0, "∂L/∂w2 = −2 (y − ŷ) · h: mind the sign and the factor 2")
    check(answer[0], -1.25, "∂L/∂w1 = −2 (y − ŷ) · w2 · slope of ReLU · x: every factor once")
    check(gradients(-0.5, 3.0, 2.0, 0.5), (0.0, 0.0), "where w1·x is negative, ReLU has slope 0")

# %% [markdown]
# ### Exercise 2 · Batch normalisation while training
#
# Normalise images of shape (batch, height, width, channels): one mean and one variance for each
# *channel*.


# %% nbgrader={"grade": false, "grade_id": "batch_normalise", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def batch_normalise(x, gamma, beta, epsilon=1e-3):
    """Return γ (x − μ) / √(σ² + ε) + β; gamma and beta have shape (channels,)."""
    ### BEGIN SOLUTION
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "batch_normalise_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(batch_normalise) as check:
    maps = np.random.default_rng(0).normal(2.0, [1.0, 3.0], size=(4, 5, 5, 2))
    one, none = np.ones(2), np.zeros(2)
    answer = batch_normalise(maps.copy(), one, none)
    check(None if answer is None else np.shape(answer), (4, 5, 5, 2), "the shape stays as it is")
    check(
        answer.mean(axis=(0, 1, 2)), [0, 0], "average over batch, height and width of each channel"
    )
    moved = batch_normalise(maps.copy(), np.array([2.0, 3.0]), np.array([5.0, -1.0]))
    check(moved.mean(axis=(0, 1, 2)), [5, -1], "β is added after the scaling by γ")
    hint = "divide each channel by its own √(σ² + ε), then multiply by its own γ"
    check(moved.std(axis=(0, 1, 2)), [2, 3], hint, 1e-3)
    flat = batch_normalise(np.array([0.0, 0.2]).reshape(2, 1, 1, 1), np.ones(1), np.zeros(1))
    check(flat.ravel(), [-0.953463, 0.953463], "ε is added to the variance, inside the root")

# %% [markdown]
# ### Exercise 3 · Normalisation for free
#
# When a network only predicts, mean and variance are constants. Then a dense layer $x W + b$ and the
# normalisation after it are together one dense layer, with other weights: find them.


# %% nbgrader={"grade": false, "grade_id": "fold", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def fold(kernel, bias, gamma, beta, mean, variance, epsilon=1e-3):
    """Return (kernel, bias) of the one layer; kernel (inputs, units), all others (units,)."""
    ### BEGIN SOLUTION
    factor = gamma / np.sqrt(variance + epsilon)
    return kernel * factor, (bias - mean) * factor + beta
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "fold_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(fold) as check:
    kernel, bias = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]]), np.array([0.5, -2.0])
    gamma, beta = np.array([2.0, 0.25]), np.array([1.0, -1.0])
    mean, variance = np.array([1.0, -3.0]), np.array([0.999, 0.249])
    answer = fold(kernel, bias, gamma, beta, mean, variance)
    check(None if answer is None else len(answer), 2, "return a kernel and a bias")
    check(answer[0], kernel * [2.0, 0.5], "each unit's weights are multiplied by γ / √(σ² + ε)")
    check(answer[1], [0.0, -0.5], "the mean is taken from the old bias; β is added at the end")

# %% [markdown]
# **Try this, too:** train the network of Experiment 1 with σ = 0.01 *and* batch normalisation, with the recipe *as in the
# book* of 5.2. Which channels are alive after 200 steps? (Lab 7 shows how well it learns.)
#
# ## 10. What to remember
#
# - Backpropagation is the chain rule, one factor for each step, from the loss to the input.
# - Signals and gradients must neither shrink nor grow from layer to layer: He for ReLU, Glorot for tanh;
#   a sigmoid in hidden layers loses the signal with either.
# - A result such as "it never learns" belongs to a whole recipe, its first steps included, not to one setting.
# - Batch normalisation keeps the size of the sums right during training; it computes something else
#   when it predicts.
# - A fast training is many small gains. Measure each one alone, over several seeds.
#
# **Read on.** Glorot and Bengio, *Understanding the Difficulty of Training Deep Feedforward Neural
# Networks*, 2010 · He et al., *Delving Deep into Rectifiers*, 2015 (arXiv:1502.01852) · Ioffe and
# Szegedy, *Batch Normalization*, 2015 (arXiv:1502.03167) · Santurkar et al., *How Does Batch
# Normalization Help Optimization?*, 2018 (arXiv:1805.11604) · Jordan, *94 % on CIFAR-10 in 3.29 Seconds
# on a Single GPU*, 2024 (arXiv:2404.00498) · one cycle: Smith, *A Disciplined Approach to Neural Network
# Hyper-Parameters*, 2018 (arXiv:1803.09820) · label smoothing: Szegedy et al., *Rethinking the Inception
# Architecture*, 2016 (arXiv:1512.00567), and Müller, Kornblith and Hinton, *When Does Label Smoothing
# Help?*, 2019 (arXiv:1906.02629) · averaging: Izmailov et al., *Averaging Weights Leads to Wider Optima
# and Better Generalization*, 2018 (arXiv:1803.05407).

# %%
run.check()
