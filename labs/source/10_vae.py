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
# # Lab 10 · Variational auto-encoder: digits that nobody wrote
#
# After this lab you can
#
# - say why the codes of an auto-encoder are of no use for making new images, and what a variational one
#   changes;
# - write the two parts of its loss so that no number overflows, and check each against something known;
# - draw random numbers inside a network so that gradients pass through (a layer of your own);
# - write a model with its own `train_step` and three losses, watch what it draws after every epoch, save
#   and load it;
# - measure what the weight β and the number of latent dimensions do.
#
# **Chapter 10** of the book. **Needs** lab 6 and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import data, figures, schedules
from preprocessing import image_batches
import keras, numpy as np, pandas as pd, tensorflow as tf, tensorflow_datasets as tfds
from keras import layers

run = labkit.start("10_vae")

# %% [markdown]
# ## 1. The auto-encoder
#
# An *encoder* turns an image $x$ into a few numbers, its *code* $z$; a *decoder* makes an image from a
# code. The two are trained together, with the image itself as the target, so no labels are needed. Two
# numbers cannot hold 784 pixels: the network must find out what digits have in common, and keep what tells
# them apart. How many numbers a code has is the *latent dimension* (*latent*: hidden).
#
# > **Note on the book.** Its networks have convolutions in front of the dense layers; how many and how wide
# > stands in a picture only. Ours have dense layers alone: far less arithmetic, so a laptop trains them in minutes.


# %% tags=["definition"]
def make_encoder(latent_dim, widths, heads=("code",)):
    """Return images (28, 28, 1) -> for each of `heads` a vector (latent_dim,) in float32."""
    images = keras.Input((28, 28, 1))
    features = layers.Flatten()(images)
    for width in widths:
        features = layers.Dense(width, activation="relu")(features)
    vectors = [layers.Dense(latent_dim, name=head, dtype="float32")(features) for head in heads]
    return keras.Model(images, vectors if len(heads) > 1 else vectors[0], name="encoder")


def make_decoder(latent_dim, widths):
    """Return codes (latent_dim,) -> logits of the pixels (28, 28, 1) in float32."""
    features = codes = keras.Input((latent_dim,))
    for width in reversed(widths):
        features = layers.Dense(width, activation="relu")(features)
    logits = layers.Dense(28 * 28, dtype="float32")(features)
    return keras.Model(codes, layers.Reshape((28, 28, 1), dtype="float32")(logits), name="decoder")


# %% [markdown]
# The model holds both. It is a subclass of `keras.Model`, so it says itself how it is saved: `get_config`
# describes its two parts, and `from_config` makes them again (lab 6). (Where the processor computes faster
# in short numbers, the hidden layers will use them, lab 4. Code and logits are always float32, and so is
# all that the loss is made of.)


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class AutoEncoder(keras.Model):
    """A decoder after an encoder: images (batch, 28, 28, 1) -> logits of the same shape."""

    def __init__(self, encoder, decoder, **options):
        super().__init__(**options)
        self.encoder, self.decoder = encoder, decoder
        self.built = True  # both parts have weights already

    def code(self, images):
        """Return the code of each image, (batch, latent_dim): the encoder's first output."""
        return keras.tree.flatten(self.encoder(images))[0]

    def call(self, images):
        return self.decoder(self.code(images))

    def get_config(self):
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        saved = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return super().get_config() | saved

    @classmethod
    def from_config(cls, config):
        parts = ("encoder", "decoder")
        made = {name: keras.saving.deserialize_keras_object(config[name]) for name in parts}
        return cls(**config | made)


def make_autoencoder(latent_dim, widths):
    """Return an auto-encoder whose hidden layers have these widths, mirrored in the decoder."""
    return AutoEncoder(make_encoder(latent_dim, widths), make_decoder(latent_dim, widths))


# %% tags=["nbval-check-output"]
model = make_autoencoder(2, widths=(512, 256, 128))
for part in (model.encoder, model.decoder):
    widths = [layer.units for layer in part.layers if isinstance(layer, layers.Dense)]
    print(part.name, part.input_shape[1:], "->", part.output_shape[1:], end="  ")
    print("dense layers", widths, f"{part.count_params():,} parameters")

# %% [markdown]
# ### The error of a reconstruction
#
# The decoder ends in one logit $\ell$ for each pixel; $p = 1 / (1 + e^{-\ell})$ is its probability of ink.
# The error is the *binary cross-entropy*, minus the logarithm of the probability of what is there,
#
# $$-x \ln p - (1 - x) \ln (1 - p) \;=\; \max(\ell, 0) - x \ell + \ln\!\big(1 + e^{-|\ell|}\big),$$
#
# *added up* over the 784 pixels of an image. Its unit, with the natural logarithm, is the *nat*. Our pixels
# are grey, $0 \le x \le 1$: each counts as a share $x$ of ink and a share $1 - x$ of paper.
#
# In exact arithmetic both sides are equal. **Before you run the cell:** paper, $x = 0$, and a decoder that is more and
# more certain of ink. What does the left side give in float32 once $1 - p$ rounds to 0? And with the book's
# $10^{-7}$ inside the logarithm?


# %% tags=["definition"]
def reconstruction_error(images, logits):
    """Return −ln p(x|z) of each image in nats: twice (batch, 28, 28, 1) -> (batch,)."""
    each = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
    return tf.reduce_sum(each, axis=[1, 2, 3])


# %% tags=["nbval-check-output"]
paper_pixel = tf.zeros((1, 1, 1, 1))
for logit in (2.0, 30.0, 200.0):
    p = tf.sigmoid(logit)
    left, book = -tf.math.log(1 - p), -tf.math.log(1 - p + 1e-7)
    right = reconstruction_error(paper_pixel, tf.fill((1, 1, 1, 1), logit))[0]
    print(f"logit {logit:5}  left {left:8.4f}  book {book:8.4f}  right {right:8.4f}")

# %% [markdown]
# The right side (lab 6: work from logits) is right everywhere. The $10^{-7}$ keeps the number finite, but
# then it no longer grows, so the worst mistakes have no gradient.
#
# ## 2. From points to clouds
#
# The training never asks the auto-encoder what lies *between* two codes. Where no training image has its
# code, the decoder may answer anything: whoever picks a code by chance gets a picture by chance.
#
# A **variational** auto-encoder (Kingma and Welling, 2014) gives each image not a point but a cloud, a
# normal distribution with mean $\mu$ and variance $\sigma^2$ in every latent dimension, and draws the code
# from it, a new one in every step. Two things make the idea:
#
# - all codes of a cloud must decode to about the same image, so the decoder becomes smooth. Where the
#   clouds of two images overlap, it must find something between both;
# - a second term of the loss pulls all clouds towards *one* known distribution, the standard normal
#   distribution. Then a new image is made by drawing a code from it.

# %%
figures.graph(
    {
        "images": "images x\n28 × 28 × 1",
        "encoder": "encoder\nq(z | x)",
        "mean": "mean μ\n2 numbers",
        "log_variance": "log-variance s\n2 numbers",
        "noise": "noise ε\nfrom N(0, 1)",
        "sample": "code z\nμ + exp(s / 2) · ε",
        "decoder": "decoder\np(x | z)",
        "logits": "logits\n28 × 28 × 1",
    },
    [
        ("images", "encoder"), ("encoder", "mean"), ("encoder", "log_variance"), ("mean", "sample"),
        ("log_variance", "sample"), ("noise", "sample"), ("sample", "decoder"), ("decoder", "logits"),
    ],
    "A variational auto-encoder with two latent dimensions: the noise enters beside the network.",
)  # fmt: skip

# %% [markdown]
# Drawing has no derivative. The *reparameterisation trick* draws $\varepsilon$ from $\mathcal N(0, 1)$,
# which does not depend on any weight, and computes
#
# $$z = \mu + \sigma \varepsilon, \qquad \sigma = e^{s/2}, \qquad s = \ln \sigma^2,$$
#
# whose derivatives with respect to $\mu$ and $s$ are known. The encoder gives the *log-variance* $s$,
# because it may be any number, while a variance must be positive.
#
# > **Note on the book.** It writes $z = \exp(\sigma^2)\,\varepsilon + \mu$. What it calls $\sigma^2$ is the
# > log-variance (the variable in its code is `z_log_var`), and the factor ½ is missing: it multiplies the
# > noise with the variance instead of the standard deviation, so that noise and KL divergence speak of two
# > different clouds. Ours are the correct ones.


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class Sampling(layers.Layer):
    """Draw from N(mean, exp(log_variance)): twice (batch, latent_dim) -> (batch, latent_dim)."""

    def __init__(self, seed=None, **options):
        super().__init__(**options)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)  # its state is a variable of the layer

    def call(self, mean, log_variance):
        noise = keras.random.normal(tf.shape(mean), dtype=mean.dtype, seed=self.generator)
        return mean + tf.exp(0.5 * log_variance) * noise

    def get_config(self):
        return super().get_config() | {"seed": self.seed}


# %% [markdown]
# Two checks. Many draws must have the mean and the standard deviation that were asked for. And gradients
# must pass: for one dimension $\operatorname{E}[z^2] = \mu^2 + \sigma^2$, so its derivatives are $2\mu$
# with respect to $\mu$ and $\sigma^2$ with respect to $s$. **Before you run the cell:** mean 2 and
# log-variance $\ln 0.25$. Which standard deviation will the book's factor $\exp(s)$ give?

# %% tags=["nbval-check-output"]
n = 400_000
log_variance = tf.fill((n, 1), np.log(0.25).astype("float32"))
codes = Sampling(seed=1)(tf.fill((n, 1), 2.0), log_variance).numpy()
moments = codes.mean(), codes.std()
print("mean 2, standard deviation 0.5:", np.allclose(moments, (2.0, 0.5), atol=0.01))
noise = tf.exp(log_variance) * keras.random.normal((n, 1), seed=1)
print("with the book's factor 0.25:", np.allclose(noise.numpy().std(), 0.25, atol=0.01))

# %% tags=["nbval-check-output"]
mean, log_variance = tf.Variable([[1.5, -0.5]]), tf.Variable([[-1.0, 0.5]])
with tf.GradientTape() as tape:
    codes = Sampling(seed=2)(tf.repeat(mean, n, axis=0), tf.repeat(log_variance, n, axis=0))
    square = tf.reduce_sum(tf.reduce_mean(tf.square(codes), axis=0))
gradients = tape.gradient(square, [mean, log_variance])
print("2μ:", np.allclose(gradients[0], 2 * mean, atol=0.02), end="  ")
print("σ²:", np.allclose(gradients[1], tf.exp(log_variance), atol=0.02))

# %% [markdown]
# ## 3. The loss
#
# What should such a network maximise? The probability of the training images,
# $p(x) = \int p(x|z)\, p(z)\, dz$, where $p(z)$ is standard normal. In more than a few dimensions the integral
# cannot be computed: nearly all codes make an image quite unlike $x$. But for any distribution $q(z|x)$ Jensen's inequality gives a
# bound, the *evidence lower bound* (ELBO):
#
# $$\ln p(x) \;\ge\; \operatorname{E}_{q(z|x)}\big[\ln p(x|z)\big] - D_\mathrm{KL}\big(q(z|x) \,\|\, p(z)\big).$$
#
# The loss is its negative, with a weight $\beta$ that is 1 for now:
#
# $$L = \underbrace{\operatorname{E}_{q(z|x)}\big[-\ln p(x|z)\big]}_{\text{reconstruction}}
#     + \beta\; \underbrace{D_\mathrm{KL}\big(q(z|x) \,\|\, p(z)\big)}_{\text{KL divergence}}.$$
#
# *Reconstruction* is the error of section 1; for its expectation one code for each image and step is
# enough. The *KL divergence* says how many nats, at most, the cloud tells about the image (as a mean over
# the images): 0 if all have the same cloud, the standard normal one. For normal distributions it has a closed form, a sum over the
# dimensions:
#
# $$D_\mathrm{KL} = \tfrac12 \sum_j \Big( \underbrace{e^{s_j} - (1 + s_j)}_{\text{size of the cloud}} + \underbrace{\mu_j^2}_{\text{its place}} \Big).$$
#
# Without the first part the encoder would make $\sigma$ smaller and smaller, since noise only disturbs the
# reconstruction: an auto-encoder again. Without the second it could put the clouds so far apart that noise of size 1 does
# not matter. With the first part, $\sigma = 1$ ($s = 0$) costs nothing, and every other size costs something:

# %%
figure, panels = figures.axes(1, 2, width=4, height=2.6)
figures.draw(panels[0], np.exp, -4, 4, label="exp(s)")
figures.draw(panels[0], lambda s: 1 + s, -4, 4, label="1 + s")
figures.draw(panels[1], lambda s: np.exp(s) - (1 + s), -4, 4, color="black")
for panel, label in zip(panels, ("two functions of s", "exp(s) − (1 + s)")):
    panel.set(xlabel="log-variance s", ylabel=label, ylim=(-4, 12))
panels[0].legend()
figures.show(
    figure,
    "The line 1 + s touches exp(s) at s = 0, so their difference is never negative, and 0 only there.",
)


# %% tags=["definition"]
def kl_each(mean, log_variance):
    """Return the KL divergence from N(0, 1) in each dimension, in nats; same shape as inputs."""
    return 0.5 * (tf.exp(log_variance) - (1.0 + log_variance) + tf.square(mean))


# %% [markdown]
# **Before you run the cell:** what is the divergence of the standard normal distribution from itself? Of a
# cloud of the same size, one standard deviation to the side?

# %% tags=["nbval-check-output"]
for mean, log_variance in [(0.0, 0.0), (1.0, 0.0), (0.0, np.log(4.0)), (0.0, np.log(0.01))]:
    kl = kl_each(tf.constant(mean), tf.constant(log_variance, "float32"))
    print(f"mean {mean}, variance {np.exp(log_variance):.2f}: {kl:.4f} nats")

# %% [markdown]
# A formula with four terms is easily written wrong, and nobody would notice: the network would learn
# something all the same. So we compare it with the definition,
# $D_\mathrm{KL}(q \| p) = \operatorname{E}_q[\ln q(z) - \ln p(z)]$, a mean over many draws (*Monte Carlo*):


# %% tags=["nbval-check-output"]
def log_normal(codes, mean, log_variance):
    """Return ln N(mean, exp(log_variance)) at the codes, (n, latent_dim) -> (n,)."""
    square = (codes - mean) ** 2 / tf.exp(log_variance)
    return -0.5 * tf.reduce_sum(tf.math.log(2 * np.pi) + log_variance + square, axis=1)


mean, log_variance = tf.constant([[1.0, -0.5]]), tf.constant([[-1.0, 0.5]])
codes = Sampling(seed=3)(tf.repeat(mean, n, axis=0), tf.repeat(log_variance, n, axis=0))
ratios = log_normal(codes, mean, log_variance) - log_normal(codes, 0.0, tf.zeros((1, 2)))
formula = tf.reduce_sum(kl_each(mean, log_variance))
same = np.allclose(tf.reduce_mean(ratios), formula, atol=0.01)
print(f"formula {formula:.4f} nats, the mean of the draws is the same to 0.01: {same}")

# %% [markdown]
# > **Note on the book.** It takes the *mean* of the KL terms over the latent dimensions as well, but the
# > *sum* of the pixel errors. So its KL divergence counts half with two dimensions, and a sixteenth with
# > sixteen: it trains with $\beta = 1 / \text{latent\_dim}$. Section 6 shows what a β below 1 does. (It also adds
# > this loss with `model.add_loss` on a functional model, which Keras 3 no longer has; one alternative, in `call`, returns
# > a name that is not defined; the other, a `KLLoss` layer, is the way that Keras 3 still allows.)
#
# ## 4. The model and its training step
#
# The VAE is an auto-encoder whose encoder has two outputs. What it learns from depends on both outputs and
# on the noise, not only on the model's output, so `compile(loss=…)` cannot say it; `train_step` can (lab
# 6). `costs` gives three numbers for each image. Three metrics keep their means over the epoch; listed by
# `metrics`, they are set back to zero by Keras when an epoch begins. `test_step` reports the same for
# images that are not trained on.


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class VAE(AutoEncoder):
    """A variational one: the encoder gives mean and log-variance; `call` decodes the mean."""

    def __init__(self, encoder, decoder, beta=1.0, **options):
        super().__init__(encoder, decoder, **options)
        self.beta = beta
        self.sample = Sampling(dtype="float32")
        self.trackers = [keras.metrics.Mean(name) for name in ("loss", "reconstruction", "kl")]

    @property
    def metrics(self):
        return self.trackers

    def costs(self, images, targets):
        """Return loss, reconstruction and KL of each image in nats, three times (batch,)."""
        mean, log_variance = self.encoder(images)
        logits = self.decoder(self.sample(mean, log_variance))
        reconstruction = reconstruction_error(targets, logits)
        kl = tf.reduce_sum(kl_each(mean, log_variance), axis=1)
        return reconstruction + self.beta * kl, reconstruction, kl

    def train_step(self, data):
        with tf.GradientTape() as tape:
            costs = self.costs(*data)
            loss = self.optimizer.scale_loss(tf.reduce_mean(costs[0]))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self.report(costs)

    def test_step(self, data):
        return self.report(self.costs(*data))

    def report(self, costs):
        for tracker, values in zip(self.trackers, costs):
            tracker.update_state(values)
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def get_config(self):
        return super().get_config() | {"beta": self.beta}


# %% tags=["definition"]
def make_vae(latent_dim, widths, beta=1.0):
    """Return a variational auto-encoder whose hidden layers have these widths."""
    encoder = make_encoder(latent_dim, widths, heads=("mean", "log_variance"))
    return VAE(encoder, make_decoder(latent_dim, widths), beta)


# %% [markdown]
# Does it report, save and load? A small one on random pictures. The file holds the networks and the memory
# of the optimiser, but not the state of the random numbers; we copy that, and then even the losses *with*
# noise must be equal.

# %% tags=["nbval-check-output"]
keras.utils.set_random_seed(0)
toy = make_vae(3, widths=(16,), beta=0.5)
toy.compile("adam", jit_compile=run.jit_compile)
x = tf.random.stateless_uniform((40, 28, 28, 1), seed=(10, 1))
history = toy.fit(x, x, batch_size=16, epochs=2, verbose=0).history
print("fit reports", sorted(history))

folder = run.log_dir / "models" / run.profile
folder.mkdir(parents=True, exist_ok=True)
toy.save(folder / "toy.keras")
loaded = keras.saving.load_model(folder / "toy.keras")
steps = int(loaded.optimizer.iterations)
print(f"{type(loaded).__name__} with β = {loaded.beta} after {steps} steps")
print("same reconstructions:", np.allclose(loaded(x), toy(x), atol=1e-5))
loaded.sample.generator.state.assign(toy.sample.generator.state.numpy())
losses = [vae.evaluate(x, x, verbose=0, return_dict=True) for vae in (toy, loaded)]
print("same losses:", np.allclose(*(list(one.values()) for one in losses), rtol=1e-5))

# %% [markdown]
# ## 5. Experiment 1 · Auto-encoder against variational auto-encoder
#
# ### 5.1 Prepare the data
#
# MNIST (lab 1): 60,000 handwritten digits to train on and 10,000 to test. Nine tenths of the first are for
# training, the rest for validation. Each batch holds the images twice, as inputs and as targets; the labels
# are for the figures only. `quick` reads a small part that ships with the course.
#
# > **Note on the book.** It validates on the test images, and keeps the decoder that is best on them, so none is left for
# > an honest test. (Its first lines load the training part under the name of the test part; its training script uses
# > `info` without defining it, lists `model.py` but imports `models`, and its logs have two names.) Batches of 16 and
# > RMSprop at its usual rate, for 20 epochs, are its recipe; larger batches, Adam with one cycle of the learning rate
# > (lab 4), and 18 epochs (8 in `quick`) are ours.


# %% tags=["definition"]
def twice(images, labels):
    """Return the images as inputs and as targets."""
    return images, images


def as_arrays(examples):
    """Return all images (n, 28, 28, 1), in [0, 1], and their digits (n,)."""
    images, labels = next(iter(image_batches(examples, len(examples))))
    return images.numpy(), labels.numpy().argmax(axis=1)


# %%
name = run.scale(quick="mnist_sample", standard="mnist", full="mnist")
train, validation, test = tfds.load(
    name, split=["train[:90%]", "train[90%:]", "test"], data_dir=data.tfds_dir(name)
)
batch_size = run.scale(quick=64, standard=128, full=128)
batches = image_batches(train, batch_size, shuffle=True, seed=run.seed).map(twice)
validation_batches = image_batches(validation, 500).map(twice)
(train_images, train_digits), (test_images, test_digits) = as_arrays(train), as_arrays(test)
print("images:", len(train), "to train,", len(validation), "to validate,", len(test), "to test")


# %% tags=["definition"]
def paper(images):
    """Return digits (n, 28, 28, 1) as black ink on white paper, (n, 28, 28, 3)."""
    return list(np.repeat(1 - np.asarray(images), 3, axis=-1))


# %%
shown = test_images[[np.flatnonzero(test_digits == digit)[0] for digit in range(10)]]
figures.images(paper(shown), range(10), "The first test image of each digit.", columns=10, size=0.7)

# %% [markdown]
# How small can the reconstruction error become? Not 0: for a grey pixel even $p = x$, the image itself,
# costs $-x \ln x - (1 - x) \ln (1 - x)$. So every error here contains this
# floor. Read $x$ as the probability that a pixel is black: the error is then the mean over all black-and-white versions of
# the image, and the ELBO bounds their mean log-probability. Papers that use one fixed version of each image measure
# something else.

# %%
p = np.clip(test_images.astype("float64"), 1e-12, 1 - 1e-12)
floor = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(axis=(1, 2, 3)).mean()
print(f"{floor:.1f} nats for a test image, if the prediction is the image itself")

# %% [markdown]
# ### 5.2 Build and train
#
# To see what a decoder has learned we decode a grid: 15 × 15 codes, evenly over the square [−1.5, 1.5]²,
# make one picture of 420 × 420 pixels. A callback does it after each epoch, for TensorBoard and for an
# animation.
#
# > **Note on the book.** In one place it says that the encoder makes the 225 codes. It does not: they are a
# > fixed grid.


# %% tags=["definition"]
def latent_grid(decoder, limit=1.5, steps=15):
    """Decode a square of codes into one picture, (28 · steps, 28 · steps), values in (0, 1).

    The first number of the code grows to the right, the second upwards, from −limit to limit.
    """
    ticks = np.linspace(-limit, limit, steps, dtype="float32")
    codes = np.stack(np.meshgrid(ticks, ticks[::-1]), axis=-1).reshape(-1, 2)
    pictures = tf.sigmoid(decoder(codes)).numpy().reshape(steps, steps, 28, 28)
    return pictures.transpose(0, 2, 1, 3).reshape(28 * steps, 28 * steps)


class DecodedGrid(keras.callbacks.Callback):
    """Decode the grid after each epoch: for TensorBoard, and in `frames`, black ink on white."""

    def __init__(self, folder):
        super().__init__()
        self.folder = str(folder)

    def on_train_begin(self, logs=None):
        self.frames, self.writer = [], tf.summary.create_file_writer(self.folder)

    def on_epoch_end(self, epoch, logs=None):
        grid = latent_grid(self.model.decoder)
        self.frames.append((255 * (1 - grid)).round().astype("uint8"))
        with self.writer.as_default(step=epoch):
            tf.summary.image("decoded grid", self.frames[-1][None, :, :, None])

    def on_train_end(self, logs=None):
        self.writer.close()


# %% [markdown]
# One function trains all networks of this lab, with the same recipe. `run.callbacks` keeps an interrupted
# training (lab 6); it sees the code of the model's class, but not of the functions that it calls, so we
# name these: a changed formula must not continue old weights. With the weights it keeps the state of `Sampling`, so a training that goes on draws the noise
# that it would have drawn.

# %%
import inspect

epochs = run.scale(quick=8, standard=18, full=100)
widths = run.scale(quick=(256, 128, 64), standard=(512, 256, 128), full=(512, 256, 128))


def train_network(name, make, latent_dim, callbacks=(), loss=None, **options):
    """Build what `make` makes, compile and fit it; return it and its history."""
    keras.utils.set_random_seed(run.seed)
    with run.fast():
        model = make(latent_dim, widths, **options)
    optimizer = keras.optimizers.Adam(schedules.one_cycle(1.5e-3, epochs * len(batches)))
    model.compile(optimizer, loss, jit_compile=run.jit_compile)
    code = [inspect.getsource(function) for function in (reconstruction_error, kl_each)]
    history = model.fit(
        batches, validation_data=validation_batches, epochs=epochs, verbose=0, shuffle=False,
        callbacks=run.callbacks(name, *callbacks, data=[batches, *code]),
    )  # fmt: skip
    print(f"{name}: {history.seconds:.0f} s for {epochs} epochs")
    return model, history.history


# %% [markdown]
# First the auto-encoder. It needs no training step of its own: input, target, loss. **Predict first:** it
# has two numbers for each image, and nothing holds them in any range. How many of the ten kinds of digit
# will its grid show?

# %%
grid = DecodedGrid(run.log_dir / "autoencoder" / "grid")
autoencoder, history_autoencoder = train_network(
    "autoencoder", make_autoencoder, 2, [grid], loss=reconstruction_error
)

# %% [markdown]
# Now the variational one, with the same layers but for the second output of the encoder. **Predict first:**
# which of the two will have the smaller *reconstruction* error? And will the KL divergence rise or fall
# while it trains? (At first the clouds hardly depend on the image.)

# %%
vaes = {}  # (latent_dim, beta) -> model
grid = DecodedGrid(run.log_dir / "vae_2" / "grid")
vaes[2, 1.0], history_vae = train_network("vae_2", make_vae, 2, [grid])

# %% [markdown]
# ### 5.3 Show the results
#
# The chapter's picture first: the same square of codes, decoded by both.


# %%
def show_grid(panel, model):
    edge = 1.5 * 15 / 14  # the codes lie in the middle of their pictures
    place = (-edge, edge, -edge, edge)
    panel.imshow(latent_grid(model.decoder), cmap="Greys", vmin=0, vmax=1, extent=place)
    panel.set(xlabel="first number of the code", ylabel="second number")
    panel.grid(False)


models = {"auto-encoder": autoencoder, "variational": vaes[2, 1.0]}
figure, panels = figures.axes(1, 2, width=4.3, height=4.2)
for panel, (name, model) in zip(panels, models.items()):
    show_grid(panel, model)
    panel.set_title(name)
figures.show(
    figure,
    "225 codes from the square [−1.5, 1.5]², decoded by the auto-encoder (left) and the variational one.",
    photo=True,
)  # fmt: skip

# %% [markdown]
# Where are the codes of real digits? (Of the variational auto-encoder we show the means of the clouds.)

# %%
from matplotlib import colormaps


def show_codes(panel, model, n=1500):
    codes = np.asarray(model.code(test_images[:n]))
    for digit in range(10):
        x, y = codes[test_digits[:n] == digit].T
        colour, marker = colormaps["tab10"](digit), f"${digit}$"
        panel.scatter(x, y, s=14, marker=marker, linewidths=0.3, color=colour)
    square = np.array([(-1.5, -1.5), (1.5, -1.5), (1.5, 1.5), (-1.5, 1.5), (-1.5, -1.5)])
    panel.plot(*square.T, color="black", linestyle="--", linewidth=1)
    panel.set(xlabel="first number of the code", ylabel="second number")


figure, panels = figures.axes(1, 2, width=4.3, height=3.8)
for panel, (name, model) in zip(panels, models.items()):
    show_codes(panel, model)
    panel.set_title(name)
figures.show(
    figure, "Codes of test images, marked by their digits; dashed: the square of the grid above."
)

# %% [markdown]
# The same in numbers. *Inside* is the share of test images whose code lies in the square (of a standard
# normal distribution: 75 %). The accuracy is that of a nearest-neighbour classifier on nothing but the
# codes: a test image gets the digit that most of the 15 nearest training codes have. It says how well the
# codes keep digits apart; neither network has seen a label. The negative ELBO is the mean of the loss over
# the test images, with one code drawn for each.

# %%
from sklearn.neighbors import KNeighborsClassifier


def measure(vae):
    """Return negative ELBO, reconstruction and KL of the test images in nats, one code each."""
    losses = vae.evaluate(test_images, test_images, batch_size=500, verbose=0, return_dict=True)
    reconstruction, kl = losses["reconstruction"], losses["kl"]
    return {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


def knn_accuracy(model):
    """Return the share of test images that the 15 nearest training codes classify correctly."""
    knn = KNeighborsClassifier(15).fit(np.asarray(model.code(train_images)), train_digits)
    return knn.score(np.asarray(model.code(test_images)), test_digits)


def share_inside(model, limit=1.5):
    """Return the share of test images whose code lies in the square [−limit, limit]²."""
    return np.mean(np.all(np.abs(model.code(test_images)) <= limit, axis=1))


# %%
error = autoencoder.evaluate(test_images, test_images, batch_size=500, verbose=0)
measured = {(2, 1.0): measure(vaes[2, 1.0])}
rows = {"auto-encoder": {"reconstruction": error}, "variational": measured[2, 1.0]}
for name, model in models.items():
    rows[name] = rows[name] | {"knn_accuracy": knn_accuracy(model), "inside": share_inside(model)}
run.record(**measured[2, 1.0])
run.record(
    knn_accuracy_latent_ae=rows["auto-encoder"]["knn_accuracy"],
    knn_accuracy_latent_vae=rows["variational"]["knn_accuracy"],
    inside_vae_minus_ae=rows["variational"]["inside"] - rows["auto-encoder"]["inside"],
)
columns = [*measured[2, 1.0], "knn_accuracy", "inside"]
table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
table.map(lambda value: "–" if np.isnan(value) else f"{value:.4g}")

# %% [markdown]
# **What happened, and why.** The auto-encoder has put its codes wherever it liked, in rays that reach far
# out, most of them outside the square (column *inside*). Its decoder is smooth, so the left grid has digits,
# too, but not of all kinds: some have all their codes elsewhere, and nothing in the network says where.
# Whoever draws a code has to guess, and between the rays lie places where nothing was learned. The variational
# one was made to fill one round cloud around 0. Its grid shows digits of all kinds that turn into each
# other, and a code drawn from the standard normal distribution decodes, nearly always, to something like a digit. The price stands in the
# column *reconstruction*: noise on the code costs sharpness. With two numbers, when most of the sharpness is
# lost already, it is a small price.
#
# The accuracies ask another question: are the digits kept apart? The auto-encoder's codes do it a little better in
# `standard` (one training each cannot say whether that is chance), and more clearly in
# `quick`. The known cloud costs little, but perhaps not nothing.
#
# The three losses of the VAE, and the error of the auto-encoder:

# %%
both = {"auto-encoder": {"val_reconstruction": history_autoencoder["val_loss"]}}
figures.curves(
    both | {"variational": history_vae}, ["val_reconstruction"],
    labels={"val_reconstruction": "validation error (nats)"},
    caption="Reconstruction error of validation images after each epoch.",
)  # fmt: skip
figures.curves(
    {"variational": history_vae}, ["val_loss", "val_kl"],
    labels={"val_loss": "validation loss (nats)", "val_kl": "KL divergence (nats)"},
    caption="Loss and KL divergence of the variational auto-encoder on validation images.",
)  # fmt: skip

# %% [markdown]
# The KL divergence *rises*. Nobody wants it large; but at first the clouds tell hardly anything about the image,
# and each further nat that they tell saves more than one nat of reconstruction. So the loss falls all the
# time, until the two prices meet.
#
# How the grid of the VAE came to be, first as stills, then as an animation:

# %%
frames = grid.frames
stages = np.unique(np.geomspace(1, epochs, 4).round().astype(int))
figure, panels = figures.axes(1, len(stages), width=2.4, height=2.6)
for panel, stage in zip(panels, stages):
    panel.imshow(frames[stage - 1], cmap="gray", extent=(-1.6, 1.6, -1.6, 1.6))
    panel.set(title=f"epoch {stage}", xlabel="first number", ylabel="second number")
    panel.grid(False)
caption = "The grid of the variational auto-encoder after the first and later epochs."
figures.show(figure, caption, photo=True)

# %%
stages = np.unique(np.geomspace(1, epochs, 12).round().astype(int))
figures.animation(
    [frames[stage - 1] for stage in stages],
    f"The same grid as an animation: epochs {', '.join(map(str, stages))}.",
    shrink=2,
)

# %% [markdown]
# TensorBoard has the grids of all epochs of both networks (page *Images*, with a slider), and the curves of
# all losses.
#
# > **Note on the book.** It calls its folder of logs `logs_vae`, but starts TensorBoard with `logs-vae`.

# %%
run.tensorboard()

# %% [markdown]
# **Interpolation.** Take the codes of two images, walk from one to the other in a straight line, and decode
# on the way:


# %%
def interpolate(model, start, end, steps=8):
    """Decode codes on the straight line between two images, (steps, 28, 28, 1)."""
    first, last = np.asarray(model.code(np.stack([start, end])))
    return tf.sigmoid(model.decoder(np.linspace(first, last, steps))).numpy()


tiles, titles = [], []
for name, model in models.items():
    for start, end in ((7, 2), (0, 4)):
        tiles += paper([shown[start], *interpolate(model, shown[start], shown[end]), shown[end]])
        titles += [name, *[""] * 9]
figures.images(
    tiles, titles, "From a 7 to a 2 and from a 0 to a 4: the two real images at the ends, eight decoded codes between.",
    columns=10, size=0.8,
)  # fmt: skip

# %% [markdown]
# (The first and the last of the eight are the reconstructions of the two images.) Every step of the way shows what the
# decoder makes of a code that perhaps no image has. Both walks pass
# through other digits: in a plane there is often no other way. Here and there the picture is a blot; in the
# walks of the auto-encoder this is where they have left one ray of codes and not yet reached the next.
#
# ## 6. Experiment 2 · What β and the latent dimension do
#
# ### 6.1 Prepare the data
#
# The same images, recipe and epochs. What changes is one number at a time.
#
# ### 6.2 Build and train
#
# First β. Higgins et al. (2017) made it larger than 1; the book's mean over dimensions makes it smaller, ½ for two
# dimensions. (`quick` tries a tenth, `standard` and `full` also ½ and 10.) **Predict first:** with a small β, will the KL divergence be
# larger or smaller? Will reconstruction plus KL, the negative ELBO, be better than with β = 1?

# %%
for beta in run.scale(quick=(0.1,), standard=(0.1, 0.5, 10.0), full=(0.1, 0.5, 10.0)):
    vaes[2, beta], _ = train_network(f"vae_2_beta_{beta:g}", make_vae, 2, beta=beta)

# %% [markdown]
# Now the latent dimension, with β = 1. (`quick` compares only 2 and 16.) **Predict first:** will the negative ELBO go on falling with each
# further dimension? Will images decoded from random codes become better, too?

# %%
for latent_dim in run.scale(quick=(16,), standard=(8, 16, 32), full=(8, 16, 32)):
    vaes[latent_dim, 1.0], _ = train_network(f"vae_{latent_dim}", make_vae, latent_dim)

# %% [markdown]
# ### 6.3 Show the results

# %%
for settings, vae in vaes.items():
    measured[settings] = measured.get(settings) or measure(vae)
run.record(negative_elbo_latent_16=measured[16, 1.0]["negative_elbo"])
table = pd.DataFrame.from_dict(measured, orient="index").sort_index().round(2)
table.rename_axis(["latent_dim", "beta"])

# %%
betas = sorted(beta for latent_dim, beta in vaes if latent_dim == 2)
figure, panels = figures.axes(2, len(betas), width=3, height=2.8)
for column, beta in enumerate(betas):
    show_codes(panels[column], vaes[2, beta], n=800)
    show_grid(panels[len(betas) + column], vaes[2, beta])
    panels[column].set_title(f"β = {beta:g}")
figures.show(
    figure,
    "Codes of test images, and the decoded grid, for each β; dashed: the square of the grid.",
    photo=True,
)

# %% [markdown]
# **What happened, and why.** β is the price of a nat. If it is high (`standard` and `full`), the encoder says less: the clouds
# grow until they overlap and all codes lie close to 0, and images that share a cloud are decoded to their mean,
# which is blurred. If it is low, the encoder pays for small clouds far apart, the reconstruction gets better,
# and the network comes closer to an auto-encoder, with codes outside the square
# and gaps between them. The negative ELBO counts both terms at the full price. A network that was trained
# at another price has minimised something else. In `standard`, the sum is clearly worse at ten times the price, somewhat
# at a tenth, and hardly at half the price: see the table. For β = 1 is sure to give the smallest sum only at
# the optimum and on the training images; a training that stops earlier, measured on other images, may do as well at another
# price. So the book's ½ does little harm in two dimensions. (What its sixteenth does in sixteen, and what its wrong factor
# of the noise does, you can try.)

# %%
latent_dims = sorted(latent_dim for latent_dim, beta in vaes if beta == 1.0)
names = [str(latent_dim) for latent_dim in latent_dims]
figure, panels = figures.axes(1, 2, width=4.3)
bottom = np.zeros(len(names))
for term, hatch in (("reconstruction", ""), ("kl", "////")):
    heights = np.array([measured[latent_dim, 1.0][term] for latent_dim in latent_dims])
    panels[0].bar(names, heights, bottom=bottom, hatch=hatch, edgecolor="white", label=term)
    bottom += heights
panels[0].axhline(floor, color="black", linestyle=":", label="the image itself")
panels[0].set(xlabel="latent dimension", ylabel="nats for a test image")
for latent_dim, marker in zip(latent_dims[-2:], "os"):
    each = tf.reduce_mean(kl_each(*vaes[latent_dim, 1.0].encoder(test_images)), axis=0)
    order = np.arange(1, latent_dim + 1)
    panels[1].plot(order, np.sort(each)[::-1], marker=marker, label=f"of {latent_dim}")
panels[1].set(xlabel="dimension, sorted by its KL", ylabel="mean KL of the dimension (nats)", ylim=(0, None))  # fmt: skip
for panel in panels:
    panel.legend(fontsize=8)
figures.show(figure, "Negative ELBO and its two terms by latent dimension (left); how many nats each dimension carries (right).")  # fmt: skip

# %% [markdown]
# **What happened, and why.** With more dimensions the encoder can say more, and says it: KL rises, and
# reconstruction falls by more than that. But each dimension must earn its price. In `standard`, from 16 to 32
# the negative ELBO hardly changes, and the right panel says why: about as many dimensions as before are used,
# and all others have a KL near 0. Their cloud is standard normal whatever the image, and the decoder ignores
# them.
#
# And the images? Reconstructions of test digits (from the means), and digits that nobody wrote, decoded
# from codes drawn from the standard normal distribution:

# %%
tiles, titles = paper(shown), ["test image", *[""] * 9]
for latent_dim in (2, 16):
    tiles += paper(tf.sigmoid(vaes[latent_dim, 1.0](shown)))
    titles += [f"{latent_dim} numbers", *[""] * 9]
for latent_dim in (2, 16):
    codes = np.random.default_rng(10).normal(size=(10, latent_dim))
    tiles += paper(tf.sigmoid(vaes[latent_dim, 1.0].decoder(codes)))
    titles += [f"drawn, {latent_dim}", *[""] * 9]
figures.images(
    tiles, titles, "Test images; their reconstructions from 2 and from 16 numbers; images decoded from random codes.",
    columns=10, size=0.75,
)  # fmt: skip

# %% [markdown]
# A better ELBO is not the same as better new images. In sixteen dimensions, reconstructions are sharper than in two, but
# some of the drawn ones are no digits: the clouds of the training images cover the standard
# normal distribution less well. And all images are still a little blurred: where two images are possible, the
# loss pays best for the mean of both. Lab 11 lets a second network judge the images instead of a sum over
# pixels.
#
# ## 7. Results
#
# Nats are means over the test images, grey values as targets, one code drawn for each; the accuracies are
# those of the nearest neighbours on codes of two numbers. The book shows pictures for this chapter and
# prints no number, so all of these, and the ranges that they must lie in, are ours. The numbers of `quick`
# come from a small sample and smaller networks.

# %%
run.table()

# %% [markdown]
# ## 8. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · What a pixel tells the decoder
#
# The error of section 1 has a simple slope: its derivative with respect to the logit is $\sigma(\ell) - x$, what the
# decoder says minus what is there ($\sigma(\ell)$ is the sigmoid, the $p$ of section 1). With NumPy alone: the gradient of the loss, which is the *mean* over the images of
# the *sum* over their pixels. `np.exp` must not overflow on either side: use $\sigma(\ell) = e^{\ell} / (1 + e^{\ell})$
# where $\ell < 0$ (or $\sigma(\ell) = \tfrac12 (1 + \tanh \tfrac{\ell}{2})$, which needs no cases).


# %% nbgrader={"grade": false, "grade_id": "pixel_slope", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def pixel_slope(images, logits):
    """Return the gradient of the mean error with respect to the logits: three times (n, pixels)."""
    ### BEGIN SOLUTION
    return ((1 + np.tanh(logits / 2)) / 2 - images) / len(images)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "pixel_slope_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(pixel_slope) as check, np.errstate(all="ignore"):
    hint = "σ(0) = ½: half of the ink that should be there, x = 1, so the slope is −½"
    check(pixel_slope(np.ones((1, 1)), np.zeros((1, 1))), [[-0.5]], hint)
    answer = pixel_slope(np.zeros((4, 3)), np.zeros((4, 3)))
    check(
        answer, np.full((4, 3), 0.125), "the mean over images: divide by n, but not by the pixels"
    )
    pixels, logits = np.array([[1.0, 0.0, 0.25]]), np.array([[2.0, -1.0, 0.5]])
    hint = "σ(ℓ) − x, with σ(ℓ) = 1 / (1 + exp(−ℓ))"
    check(pixel_slope(pixels, logits), [[-0.119203, 0.268941, 0.372459]], hint)
    answer = pixel_slope(np.array([[0.0], [1.0]]), np.array([[800.0], [-800.0]]))
    hint = "a logit of ±800 overflows in exp on one of the two sides; the slopes here are 1 and −1"
    check(answer, [[0.5], [-0.5]], f"{hint}, divided by two images")

# %% [markdown]
# ### Exercise 2 · KL between two normal distributions
#
# The general form: from $q = \mathcal N(\mu, e^s)$ to $p = \mathcal N(\mu_p, e^{s_p})$, in each dimension
#
# $$D_\mathrm{KL}(q \| p) = \tfrac12 \Big( s_p - s + \frac{e^{s} + (\mu - \mu_p)^2}{e^{s_p}} - 1 \Big).$$


# %% nbgrader={"grade": false, "grade_id": "kl_normals", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def kl_normals(mean, log_variance, prior_mean, prior_log_variance):
    """Return KL(q ‖ p) in nats, summed over dimensions: four times (n, latent_dim) -> (n,)."""
    ### BEGIN SOLUTION
    spread = np.exp(log_variance) + (mean - prior_mean) ** 2
    logarithms = prior_log_variance - log_variance
    return 0.5 * (logarithms + spread / np.exp(prior_log_variance) - 1).sum(axis=1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "kl_normals_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(kl_normals) as check:
    zero, one, log_4 = np.zeros((1, 2)), np.ones((1, 2)), np.full((1, 2), np.log(4))
    place = np.array([[1.0, -2.0]])
    check(kl_normals(place, log_4, place, log_4), [0.0], "from a distribution to itself it is 0")
    hint = "half the square of the distance, added up over the dimensions"
    check(kl_normals(place, zero, zero, zero), [2.5], hint)
    hint = "exp(s) is the variance, with no further factor; and it goes from q to p"
    check(kl_normals(zero, log_4, zero, zero), [1.613706], hint)
    hint = "what is seen from p is measured in the variance of p: divide by exp(prior_log_variance)"
    check(kl_normals(one, log_4, zero, log_4), [0.25], hint)

# %% [markdown]
# ### Exercise 3 · A tighter bound
#
# With $k$ codes for each image instead of one, and $w_i = p(x|z_i)\,p(z_i) / q(z_i|x)$,
#
# $$\ln p(x) \;\ge\; \operatorname{E}\Big[ \ln \frac1k \sum_{i=1}^{k} w_i \Big],$$
#
# which is the ELBO for $k = 1$ and closer to $\ln p(x)$ for more (Burda et al., 2016). For images the
# logarithms of the weights are so far below 0 that `exp` rounds to 0 (below about −104 in float32, −745 in float64). So take the largest out of the sum
# first.


# %% nbgrader={"grade": false, "grade_id": "tighter_bound", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def tighter_bound(log_weights):
    """Return ln of the mean weight of each image; log_weights, (n, k), hold ln w -> (n,)."""
    ### BEGIN SOLUTION
    largest = log_weights.max(axis=1)
    return largest + np.log(np.exp(log_weights - largest[:, None]).mean(axis=1))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "tighter_bound_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(tighter_bound) as check, np.errstate(all="ignore"):
    hint = "five equal weights have this weight as their mean, in each row: divide the sum by k"
    check(tighter_bound(np.full((2, 5), -3.0)), [-3.0, -3.0], hint)
    hint = "the logarithm of the mean of the weights, not the mean of the logarithms"
    check(tighter_bound(np.array([[-1.0, -3.0], [-2.0, -2.0]])), [-1.566219, -2.0], hint)
    apart = tighter_bound(np.array([[-2000.0, -2001.0], [5.0, 5.0]]))
    hint = "in each row, subtract its largest number before exp, and add it after the logarithm"
    check(apart, [-2000.379885, 5.0], hint)

# %% [markdown]
# **Try this, too:** a network that cleans images. Its inputs are images with noise on them, its targets the
# clean ones: in place of `twice` give both calls of `map` a function that returns both. Nothing in the model has to change.
# Why not?
#
# ## 9. What to remember
#
# - An auto-encoder learns codes, but nothing about the space between them; a variational one learns clouds
#   that fill a known distribution.
# - The encoder gives the log-variance $s$. The noise is multiplied by $e^{s/2}$.
# - Reconstruction is a sum over pixels, KL a sum over dimensions, and the loss the mean over images of
#   both: with β = 1 it is a bound in nats.
# - Work from logits. Check a formula against its definition, by drawing.
# - β is the price of a nat: a cheap one buys sharp reconstructions, and codes that nobody can draw from.
# - A dimension that does not earn its price is left unused.
#
# **Read on.** Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014 (arXiv:1312.6114) · Rezende,
# Mohamed and Wierstra, *Stochastic Backpropagation and Approximate Inference in Deep Generative Models*,
# 2014 (arXiv:1401.4082) · Higgins et al., *β-VAE: Learning Basic Visual Concepts with a Constrained
# Variational Framework*, 2017 · Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016
# (arXiv:1509.00519) · Kingma and Welling, *An Introduction to Variational Autoencoders*, 2019
# (arXiv:1906.02691).

# %%
run.check()
