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
# # Lab 11 · From the minimax game to WGAN-GP
#
# After this lab you can
#
# - say what generator and discriminator play for, and why a perfect discriminator teaches nothing;
# - measure how far apart two distributions are by how far their points would have to move (Wasserstein
#   distance), and train a critic that estimates it;
# - write the gradient penalty, a gradient inside a gradient, and check it;
# - train two networks against each other in one `fit`, stop it anywhere, and go on exactly;
# - judge generated images by numbers: how far they are from real ones, and whether they are copies.
#
# **Chapter 11** of the book. **Needs** lab 6 and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import backbones, data, figures, machine, order, results
from preprocessing import image_array
import keras, numpy as np, pandas as pd, tensorflow as tf, tensorflow_datasets as tfds
from keras import layers

run = labkit.start("11_gan")

# %% [markdown]
# ## 1. A game for two networks
#
# A *generator* $G$ makes an image from a *latent point* $z$, a vector of random numbers. A
# *discriminator* $D$ sees real images $x$ and generated ones and says of each how likely it is real, a
# number between 0 and 1. $D$ learns to tell them apart, $G$ learns to be taken for real (Goodfellow et
# al., 2014). Nobody tells $G$ what a right image is: all it learns comes through $D$.

# %%
figures.graph(
    {
        "z": "latent point z\nrandom numbers",
        "G": "generator\nz -> image",
        "x": "real image",
        "D": "discriminator\nimage -> how real?",
    },
    [("z", "G"), ("G", "D"), ("x", "D")],
    "Who plays: the discriminator judges real images and generated ones.",
)

# %% [markdown]
# Both play for the same number: $D$ wants it large, $G$ wants it small (*minimax*).
#
# $$\min_G \max_D V, \qquad V = \operatorname{E}_{x \sim p}[\ln D(x)] + \operatorname{E}_{x \sim q}[\ln (1 - D(x))],$$
#
# where $p$ is the distribution of the real images, and $q$ that of the generated ones. For a fixed $G$,
# each place $x$ can be looked at alone: $p \ln D + q \ln (1 - D)$ is largest for
#
# $$D^*(x) = \frac{p(x)}{p(x) + q(x)}, \quad\text{and then}\quad
#   V = -2 \ln 2 + 2 \operatorname{JS}(p, q),$$
#
# $$\operatorname{JS}(p, q) = \tfrac12 \operatorname{KL}\!\big(p \,\|\, \tfrac{p + q}{2}\big) + \tfrac12 \operatorname{KL}\!\big(q \,\|\, \tfrac{p + q}{2}\big), \qquad
#   \operatorname{KL}(p \,\|\, q) = \sum_x p \ln \frac{p}{q}.$$
#
# So a generator that faces the best discriminator makes the *Jensen–Shannon divergence* of $p$ and $q$
# small. It is 0 for $q = p$: then $D^* = \tfrac12$ everywhere. **Before you run the cell:** the real images are of the
# kinds 1 and 2, half of each. What is the divergence of a generator that makes only 3 and 4?


# %% tags=["nbval-check-output"]
def game_value(p, q, discriminator):
    """Return V for two lists of probabilities and the discriminator's answer at each place."""
    gain = (p[p > 0] * np.log(discriminator[p > 0])).sum()
    return gain + (q[q > 0] * np.log(1 - discriminator[q > 0])).sum()


def jensen_shannon(p, q):
    """Return JS(p, q) for two lists of probabilities."""
    middle = (p + q) / 2
    return sum((a[a > 0] * np.log(a[a > 0] / middle[a > 0])).sum() for a in (p, q)) / 2


p = np.array([0.5, 0.5, 0.0, 0.0])
print("generator                best discriminator          V   -2 ln 2 + 2 JS     JS")
for q in np.array([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0.5, 0.5]]):
    best = np.divide(p, p + q, out=np.full(4, 0.5), where=p + q > 0)
    divergence = jensen_shannon(p, q)
    value, by_divergence = game_value(p, q, best), 2 * divergence - 2 * np.log(2)
    print(f"{q!s:24} {best.round(2)!s:21} {value:7.3f} {by_divergence:16.3f} {divergence:6.3f}")

# %% [markdown]
# The last line is the problem of this chapter. The divergence is never more than $\ln 2$. As soon as the two
# distributions have no place in common, it is $\ln 2$, however near or far they are: nothing tells the generator which
# way to go.
# And images are such a case: of all pictures that 64 × 64 pixels can show, faces are a tiny part, and the
# first pictures of a generator lie somewhere else.
#
# ## 2. Experiment 1 · A discriminator that is too good
#
# ### 2.1 Prepare the data
#
# To see what happens we leave images aside until section 6, and take points of the plane. "Real" is a
# cloud on the left, "generated" one on the right; they do not touch.


# %% tags=["definition"]
import functools, inspect
from scipy import linalg, optimize, spatial


def cloud(centre, spread, n=2000, seed=0):
    """Return points of a round normal distribution: (n, 2), float32."""
    noise = np.random.default_rng(seed).normal(size=(n, 2))
    return (np.asarray(centre) + spread * noise).astype("float32")


def draw(points, step, stream, n=128):
    """Return n of the points, drawn at random; step and stream alone decide which."""
    seed = tf.stack([stream, step])
    places = tf.random.stateless_uniform((n,), seed, 0, points.shape[0], dtype=tf.int32)
    return tf.gather(points, places)


# %%
real, fake = cloud((-2, 0), 0.3, seed=1), cloud((2, 0), 0.3, seed=2)

# %% [markdown]
# ### 2.2 Build and train
#
# The discriminator is a small dense network that ends in a *score* $s$ without a sigmoid; $D = \sigma(s)$. (The code calls
# it `critic`, its name from section 3 on, and a loss of the generator, a function of the scores, a `signal`. From logits, as
# lab 6 says: $-\ln \sigma(s) = \operatorname{softplus}(-s)$ and
# $-\ln (1 - \sigma(s)) = \operatorname{softplus}(s)$.) The generator stands still. What counts is the
# *slope* of its loss at the generated points: how strongly, and in which direction, each point is asked
# to move. Two losses are in use:
#
# - $\ln (1 - D)$, that of the game;
# - $-\ln D$, which wants the same and is steeper for images that do not convince (*non-saturating*); most
#   programs use this one.


# %% tags=["definition"]
class Leaky(layers.LeakyReLU):
    """LeakyReLU for a network that is differentiated twice (section 4).

    TensorFlow's own operation has zeros for its second derivative and carries them back through all
    layers; here there is nothing to carry.
    """

    def call(self, x):
        slope = tf.where(x > 0, 1.0, self.negative_slope)
        return x * tf.cast(tf.stop_gradient(slope), x.dtype)


def make_mlp(n_inputs, n_outputs, limit=None):
    """Return three hidden layers of 64; with `limit`, all weights start between ±limit."""

    def start():
        return keras.initializers.RandomUniform(-limit, limit) if limit else "glorot_uniform"

    stack = [keras.Input((n_inputs,))]
    for _ in range(3):
        stack += [layers.Dense(64, kernel_initializer=start()), Leaky()]
    return keras.Sequential([*stack, layers.Dense(n_outputs, kernel_initializer=start())])


def with_adam(network, learning_rate):
    """Return a network and an optimiser that is ready for its weights."""
    optimizer = keras.optimizers.Adam(learning_rate, beta_1=0.5, beta_2=0.9)
    optimizer.build(network.trainable_variables)
    return network, optimizer


# %% tags=["definition"]
def discriminator_loss(critic, real, fake, step):
    """Return −V of a batch: the mean of −ln D for real points and −ln (1 − D) for generated ones."""
    return tf.reduce_mean(tf.nn.softplus(-critic(real)) + tf.nn.softplus(critic(fake)))


def minimax(scores):
    """Return the generator's loss ln (1 − D)."""
    return -tf.nn.softplus(scores)


def non_saturating(scores):
    """Return the generator's loss −ln D."""
    return tf.nn.softplus(-scores)


# %% [markdown]
# `slope` asks a tape for the gradient with respect to the *points*, not the weights. (The tiny number
# under the root matters where the gradient is exactly 0: there the root itself has no derivative. Because of it,
# no slope comes out below $10^{-6}$.)
#
# The loop of a training with such small networks costs more in Python than in arithmetic. So the whole
# loop goes into one `tf.function`: `for step in tf.range(steps)` becomes a loop of the graph.


# %% tags=["definition"]
def slope(function, points):
    """Return the length of the gradient of `function` at each point: (n, …) -> (n,)."""
    points = tf.convert_to_tensor(points)
    with tf.GradientTape() as tape:
        tape.watch(points)
        values = function(points)
    squares = tf.square(tape.gradient(values, points))
    return tf.sqrt(tf.reduce_sum(squares, axis=list(range(1, points.shape.rank))) + 1e-12)


@tf.function
def train_critic(critic, optimizer, loss, real, fake, steps, signals, clip=np.inf):
    """Train a critic of points; return the mean slope of each signal at the fakes, step by step.

    `signals` are losses of a generator, functions of the scores. After each step the weights are
    cut off at ±`clip`.
    """
    slopes = tf.TensorArray(tf.float32, steps)
    for step in tf.range(steps):
        x, y = draw(real, step, 0), draw(fake, step, 1)
        with tf.GradientTape() as tape:
            value = loss(critic, x, y, step)
        gradients = tape.gradient(value, critic.trainable_variables)
        optimizer.apply(gradients, critic.trainable_variables)
        for weights in critic.trainable_variables:
            weights.assign(tf.clip_by_value(weights, -clip, clip))
        slopes = slopes.write(step, tf.stack([mean_slope(critic, s, y) for s in signals]))
    return slopes.stack()


def mean_slope(critic, signal, points):
    """Return the mean slope of a loss of the generator at the points."""

    def loss(points):
        return signal(critic(points))

    return tf.reduce_mean(slope(loss, points))


# %% [markdown]
# **Predict first:** the discriminator gets better and better. What happens to the slope of each loss?

# %%
STEPS = run.scale(quick=250, standard=600, full=600)
discriminator = with_adam(make_mlp(2, 1), 2e-3)
slopes = train_critic(
    *discriminator, discriminator_loss, real, fake, steps=STEPS, signals=(minimax, non_saturating)
).numpy()

# %% [markdown]
# ### 2.3 Show the results


# %%
def show_slopes(lines, caption):
    """Plot slopes against the training step of the critic, on a logarithmic axis."""
    figure, (panel,) = figures.axes(width=5.5)
    for name, values in lines.items():
        panel.semilogy(np.arange(1, len(values) + 1), values, label=name)
    panel.set(xlabel="step of the discriminator", ylabel="mean slope at the generated points")
    panel.legend()
    figures.show(figure, caption)


lines = {"ln (1 − D)": slopes[:, 0], "−ln D": slopes[:, 1]}
show_slopes(lines, "What the generator would learn from, while the discriminator gets better.")

# %% tags=["nbval-check-output"]
gone = slopes[-1, 0] < slopes[:, 0].max() / 20
print("of the slope of ln (1 − D), less than a twentieth of its largest value is left:", bool(gone))

# %% [markdown]
# **What happened, and why.** The slope of $\ln (1 - D)$ is $\sigma(s)$ times that of the score. For a
# discriminator that is certain, $s$ is far below 0, so $\sigma(s)$ is almost 0, and with it the slope:
# the *vanishing gradient* of lab 5, with the same cause. (Where its curve ends at $10^{-6}$, that is the tiny number in
# `slope`.) The slope of $-\ln D$ does not vanish. But it grows
# as the discriminator is trained, although the points have as far to go as before: its size does not say how far.
#
# A discriminator that is too weak points in the wrong direction (section 5 shows one). So people kept the
# balance by hand: how many steps for the one, how many for the other. That is what made these networks so
# hard to train.
#
# ## 3. Another distance: how far must the points go?
#
# Think of $q$ as heaps of earth and of $p$ as the shape they should get. The *Wasserstein distance* (also
# *earth mover's distance*) is the work of the best plan, amount times distance:
#
# $$W(p, q) = \inf_{\gamma} \operatorname{E}_{(x, y) \sim \gamma} \|x - y\|,$$
#
# over all plans. A plan $\gamma$ says how much earth goes from each place $y$ to each place $x$; it takes all of $q$ and arrives
# at all of $p$, and E is the mean over the earth. For two sets of equally many points no point needs to be divided: one of
# the best plans is a list of pairs, and it can be computed:


# %% tags=["definition"]
def wasserstein(x, y):
    """Return the mean distance of the best one-to-one plan between two sets of points, twice (n, d)."""
    ways = spatial.distance.cdist(x, y)
    return float(ways[optimize.linear_sum_assignment(ways)].mean())


# %% tags=["nbval-check-output"]
x, y = [[0, 0], [1, 0], [2, 0]], [[2, 3], [0, 1], [1, 1]]
ways = spatial.distance.cdist(x, y)
print(ways.round(2))
print("pairs", list(zip(*(places.tolist() for places in optimize.linear_sum_assignment(ways)))))
print(f"W = (1 + 1 + 3) / 3 = {wasserstein(x, y):.4f}")

# %% [markdown]
# Both distances of two normal distributions with standard deviation 0.3, whose means are $d$ apart: the
# divergence from the densities along the line on which they are moved (it is the same in the plane), the Wasserstein
# distance from 300 points of each.

# %%
line = np.linspace(-2, 6, 2001)
distances = np.linspace(0, 4, 41)


def density(mean):
    values = np.exp(-0.5 * ((line - mean) / 0.3) ** 2)
    return values / values.sum()


figure, panels = figures.axes(1, 2, width=3.6, height=2.6)
panels[0].plot(distances, [jensen_shannon(density(0), density(d)) for d in distances])
panels[0].axhline(np.log(2), color="0.4", linestyle=":")
panels[0].set(xlabel="distance d of the means", ylabel="Jensen–Shannon", ylim=(0, 0.8))
x, y = (cloud((0, 0), 0.3, 300, seed) for seed in (1, 2))
panels[1].plot(distances, [wasserstein(x, y + np.array([d, 0])) for d in distances])
panels[1].set(xlabel="distance d of the means", ylabel="Wasserstein")
figures.show(figure, "The divergence ends at ln 2 and becomes flat; the Wasserstein distance does not.")  # fmt: skip

# %% [markdown]
# The left curve is flat where the two hardly overlap; the right one has slope 1 there. (It does not start at 0: two
# samples of 300 points never coincide.) This is the loss we want, but for images nobody can search through all plans.
# There is a second way to the same number (Kantorovich and Rubinstein): look for the function that is as high as possible on
# $p$ and as low
# as possible on $q$, among all functions that are nowhere steeper than 1 (*1-Lipschitz*):
#
# $$W(p, q) = \max_{D} \; \operatorname{E}_{x \sim p}[D(x)] - \operatorname{E}_{x \sim q}[D(x)], \qquad
#   |D(x_1) - D(x_2)| \le \|x_1 - x_2\|.$$
#
# The discriminator becomes a *critic*: it has no sigmoid, and its score is not a probability. The
# generator's loss is $-\operatorname{E}[D(G(z))]$. Without the condition both scores would run away to
# ±∞. And the better the critic is trained, the better the generator's slopes are: no balance to keep.
#
# ## 4. Experiment 2 · Clip the weights, or penalise the slope?
#
# How does one keep a network from being steeper than 1? Arjovsky et al. (2017) cut all weights off at
# $\pm c$ after each step: small weights, gentle slopes. Gulrajani et al. (2017) punish every slope that
# is not 1, at points on the lines between real and generated ones:
#
# $$L_D = \operatorname{E}[D(G(z))] - \operatorname{E}[D(x)] + \lambda \operatorname{E}\big[(\|\nabla D(\tilde x)\| - 1)^2\big], \qquad
#   \tilde x = t x + (1 - t)\, G(z), \quad t \sim U[0, 1].$$
#
# The condition forbids only slopes above 1. Why punish smaller ones? The best of all functions that obey it has slope 1
# along every way of the best plan, from a generated point to its real partner. Nobody knows the partners, so the penalty takes
# lines between random pairs. (Petzka et al., 2018, punish only slopes above 1: exercise 2.)
#
# The penalty is computed from a gradient, and to train with it we need *its* gradient. For that, one tape
# runs inside another: `slope` opens the inner one.


# %% tags=["definition"]
PENALTY_WEIGHT = 10.0  # λ, as in the book


def gradient_penalty(critic, real, fake, share):
    """Return the mean of (slope − 1)² at points between real and fake; `share`, (n,), of real."""
    share = tf.reshape(share, [-1] + [1] * (len(real.shape) - 1))  # one for each image
    return tf.reduce_mean(tf.square(slope(critic, share * real + (1 - share) * fake) - 1))


def wasserstein_loss(critic, real, fake, step):
    """Return the mean score of the fakes minus that of the real points."""
    return tf.reduce_mean(critic(fake)) - tf.reduce_mean(critic(real))


def penalised_loss(critic, real, fake, step, weight=PENALTY_WEIGHT):
    """Return the loss of a critic with gradient penalty; the step decides the random points."""
    share = tf.random.stateless_uniform(real.shape[:1], tf.stack([2, step]))
    penalty = gradient_penalty(critic, real, fake, share)
    return wasserstein_loss(critic, real, fake, step) + weight * penalty


# %% [markdown]
# Is it right? The slope of a linear critic $D(x) = w \cdot x$ is $\|w\|$ everywhere. **Before you run the
# cell:** what is the penalty for $\|w\| = 1$, 2 and 0? We try it with images: the length is taken over
# all pixels of an image.

# %% tags=["nbval-check-output"]
linear = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(1)])
images = tf.random.stateless_normal((2, 16, 8, 8, 3), seed=(11, 1))
share = tf.random.stateless_uniform((16,), seed=(11, 2))
direction = np.random.default_rng(11).normal(size=(8 * 8 * 3, 1))
for length in (1, 2, 0):
    linear.set_weights([length * direction / np.linalg.norm(direction), np.zeros(1)])
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(linear, *images, share)
    gradient = tape.gradient(penalty, linear.layers[-1].kernel)
    finite = bool(np.isfinite(gradient).all())
    print(f"slope {length}: penalty {penalty:.4f}, its gradient is finite: {finite}")

# %% [markdown]
# ### Why the critic has no batch normalisation
#
# The penalty wants the slope of *one* image's score with respect to *that* image. In batch normalisation
# (lab 5) mean and variance come from the whole batch, so the score of an image depends on its neighbours,
# and the gradient that the tape returns is no longer the slope of a function of one image. A test: change
# the second image of a batch. Does the score of the first change?

# %% tags=["nbval-check-output"]
batch = images[0].numpy()
changed = np.concatenate([batch[:1], batch[1:2] + 1, batch[2:]])
for name, normalisation in [("none", []), ("batch normalisation", [layers.BatchNormalization()]),
                            ("layer normalisation", [layers.LayerNormalization(axis=(1, 2, 3))])]:  # fmt: skip
    critic = keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3), *normalisation, layers.LeakyReLU(),
        layers.Flatten(), layers.Dense(1),
    ])  # fmt: skip
    scores = [critic(x, training=True)[0, 0] for x in (batch, changed)]
    depends = abs(float(scores[0] - scores[1])) > 1e-5
    print(f"{name:20} the first score depends on the second image: {depends}")

# %% [markdown]
# > **Note on the book.** It uses the gradient penalty together with batch normalisation in the critic.
# > The authors of the penalty leave it out, for the reason above, and name layer normalisation as a
# > substitute, which looks at one image at a time. Our critics have none: it is one thing less in a
# > network that is already differentiated twice.
#
# ### 4.1 Prepare the data
#
# A *Swiss roll*, and as generated points a cloud over all of it. And the two clouds of Experiment 1 once
# more.


# %% tags=["definition"]
def swiss_roll(n=2000, seed=0):
    """Return points of a spiral, about as wide as a normal distribution: (n, 2), float32."""
    rng = np.random.default_rng(seed)
    angle = 1.5 * np.pi * (1 + 2 * rng.random(n))
    spiral = (angle * [np.cos(angle), np.sin(angle)]).T / 7
    return (spiral + 0.05 * rng.normal(size=(n, 2))).astype("float32")


# %%
roll, blob = swiss_roll(), cloud((0, 0), 1.0, seed=3)

# %% [markdown]
# ### 4.2 Build and train
#
# First the two clouds with the penalty, for the curve of Experiment 1. **Predict first:** which slope
# will the generated points see, early and late?

# %%
critic_of_clouds = with_adam(make_mlp(2, 1), 2e-3)
lines["critic with penalty"] = train_critic(
    *critic_of_clouds, penalised_loss, real, fake, steps=STEPS, signals=(tf.identity,)
).numpy()[:, 0]
show_slopes(lines, "The slope of a critic with penalty stays near 1, however long it is trained.")
estimate = -float(wasserstein_loss(critic_of_clouds[0], real, fake, 0))
print(f"distance: the critic says {estimate:.2f}, the best plan {wasserstein(real[:500], fake[:500]):.2f}")  # fmt: skip

# %% tags=["nbval-check-output"]
at_the_end = lines["critic with penalty"][-100:].mean()
print(
    "with the penalty, the slope at the end is between 0.5 and 1.7:", bool(0.5 < at_the_end < 1.7)
)

# %% [markdown]
# (The penalty is a price and not a wall: where $p$ and $q$ are $d$ apart, the cheapest slope is
# $1 + d / (2 \lambda)$, a little above 1. So the critic says a little too much.)
#
# Now the roll, with four critics: the penalty, and weights cut off at three different $c$. So that the first
# cut cannot be what moves the weights to the ends, they start spread evenly between $-c$ and $c$, and Adam's step is a
# twentieth of $c$. **Predict first:** where will the weights be at the end, and
# how steep are the four critics?

# %%
CLIPS = (0.01, 0.1, 0.3)
critics, roll_slopes = {}, {}
for clip in CLIPS:
    name = f"weights within ±{clip}"
    critics[name] = with_adam(make_mlp(2, 1, limit=clip), clip / 20)
    roll_slopes[name] = train_critic(
        *critics[name], wasserstein_loss, roll, blob, steps=STEPS, signals=(tf.identity,), clip=clip
    )
critics["penalty"] = with_adam(make_mlp(2, 1), 2e-3)
roll_slopes["penalty"] = train_critic(
    *critics["penalty"], penalised_loss, roll, blob, steps=STEPS, signals=(tf.identity,)
)

# %% [markdown]
# ### 4.3 Show the results


# %%
def kernels(critic):
    """Return all weights of a network but the biases, in one row."""
    return np.concatenate([w.ravel() for w in critic.get_weights() if w.ndim == 2])


def at_the_ends(weights):
    """Return the share of weights in the outermost twentieths of their range; spread evenly, 0.05."""
    return float(np.mean(np.abs(weights) > 0.95 * np.abs(weights).max()))


figure, panels = figures.axes(2, 2, width=3.6, height=2.7)
ticks = np.linspace(-2.5, 2.5, 60, dtype="float32")
places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
for column, name in zip(panels.reshape(2, 2).T, (f"weights within ±{CLIPS[0]}", "penalty")):
    critic = critics[name][0]
    column[0].plot(*roll[:500].T, ".", color="0.7", markersize=3)
    heights = critic(places).numpy().reshape(60, 60)
    column[0].contour(ticks, ticks, heights, levels=12, colors="black", linewidths=0.8)
    column[0].set(title=name, xlabel="x₁", ylabel="x₂")
    column[1].hist(kernels(critic), bins=60, color="0.35")
    column[1].set(xlabel="weight", ylabel="number of weights")
figures.show(figure, "Lines of equal score over the Swiss roll (grey), and the critic's weights below.")  # fmt: skip

# %%
rows = {
    name: {
        "mean slope at the end": float(tf.reduce_mean(roll_slopes[name][-50:])),
        "weights at the ends": at_the_ends(kernels(critic)),
    }
    for name, (critic, _) in critics.items()
}
roll_table = pd.DataFrame.from_dict(rows, orient="index")
roll_table.map("{:.2g}".format)

# %% tags=["nbval-check-output"]
ends, steepness = roll_table["weights at the ends"], roll_table["mean slope at the end"]
print("c = 0.01: more than half of the weights are at the two ends:", ends.iloc[0] > 0.5)
print("penalty: less than a tenth of them:", ends["penalty"] < 0.1)
print(
    "slope at c = 0.3 over slope at c = 0.01, above 1,000:",
    steepness.iloc[2] / steepness.iloc[0] > 1000,
)
print("penalty: slope between 0.3 and 2:", 0.3 < steepness["penalty"] < 2)

# %% [markdown]
# **What happened, and why.** The clipped critic maximises a difference of means, and nearly every weight
# is worth more at an end of its range than inside. Almost all weights being $\pm c$, what is left are
# simple functions: the lines are nearly straight and miss the roll. And the slope of a network is a
# product of its layers: here it is at most $\sqrt 2 \cdot 64^3 \cdot c^4$, that is 0.0037, 37 or 3,003 for our three
# $c$. (So with $c$ below 0.04 no critic can be as steep as 1.) If $c$ is slightly too small, the slopes vanish; slightly
# too large, and they explode; and the right one depends on width and depth. The penalty leaves the weights free and asks for
# the slope itself. Its lines
# bend with the arms of the roll. (Dashed lines are scores below 0.)
#
# ## 5. Experiment 3 · Eight places, and one that is taken
#
# ### 5.1 Prepare the data
#
# Eight small clouds in a ring. The generator starts beside the ring, at the origin. A good one serves all
# eight places. *Mode collapse* means that it serves only one or a few.


# %% tags=["definition"]
ANGLES = np.arange(8) * np.pi / 4
CENTRES = np.stack([2 + np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def ring(n=2000, seed=0):
    """Return points of eight small clouds in a ring: (n, 2), float32."""
    rng = np.random.default_rng(seed)
    chosen = CENTRES[rng.integers(8, size=n)]
    return (chosen + 0.05 * rng.normal(size=(n, 2))).astype("float32")


def places_served(points):
    """Return how many of the eight places have at least 2 % of the points near them."""
    near = spatial.distance.cdist(points, CENTRES) < 0.25  # a third of the way to the next place
    return int((near.mean(axis=0) >= 0.02).sum())


# %% tags=["nbval-check-output"]
eight = ring()
print("places of the real points:", places_served(eight), "· of one cloud:", places_served(CENTRES[:1]))  # fmt: skip

# %% [markdown]
# ### 5.2 Build and train
#
# All games have the same networks, the same optimisers and, round by round, six steps. They differ in
# the losses, and in who gets more steps:
#
# - $-\ln D$ with a *weak* discriminator: one step for it, five for the generator;
# - $-\ln D$ with a *strong* one: five steps for it, one for the generator;
# - the critic with penalty: five steps for it, one for the generator. (That a critic is "too good" does
#   not matter.) Its penalty weighs λ = 1 instead of the book's 10: for such toy data the program of the penalty's
#   authors has a small weight, too (0.1): the critic then needs fewer steps.


# %% tags=["definition"]
def noise(step, stream, n=128):
    """Return n latent points with 8 numbers; step and stream alone decide which."""
    return tf.random.stateless_normal((n, 8), tf.stack([stream, step]))


@tf.function
def play(generator, critic, losses, turns, points, first, rounds):
    """Let critic and generator (each a network and its optimiser) take `turns` steps, in turn.

    `losses`: that of the critic as for `train_critic`, that of the generator as for the signals.
    `turns`, `first` and `rounds` are tensors: other numbers need no other graph.
    """
    (generator, generator_optimizer), (critic, critic_optimizer) = generator, critic
    for number in tf.range(first, first + rounds):
        for turn in tf.range(turns[0]):
            step = turns[0] * number + turn
            x, y = draw(points, step, 0), generator(noise(step, 1))
            with tf.GradientTape() as tape:
                value = losses[0](critic, x, y, step)
            gradients = tape.gradient(value, critic.trainable_variables)
            critic_optimizer.apply(gradients, critic.trainable_variables)
        for turn in tf.range(turns[1]):
            z = noise(turns[1] * number + turn, 3)
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(losses[1](critic(generator(z))))
            gradients = tape.gradient(value, generator.trainable_variables)
            generator_optimizer.apply(gradients, generator.trainable_variables)


# %% [markdown]
# **Predict first:** the discriminator is weak and the generator in a hurry. Where will the generated
# points be after each quarter of the rounds? Does more time for the discriminator cure it? And the critic?

# %%
ROUNDS = run.scale(quick=80, standard=150, full=150)  # in each of four parts
GAMES = {
    "−ln D, weak": ((discriminator_loss, non_saturating), (1, 5)),
    "−ln D, strong": ((discriminator_loss, non_saturating), (5, 1)),
    "critic with penalty": ((functools.partial(penalised_loss, weight=1.0), tf.negative), (5, 1)),
}
snapshots = {}
for name, (losses, turns) in GAMES.items():
    keras.utils.set_random_seed(run.seed)
    players = with_adam(make_mlp(8, 2), 1e-3), with_adam(make_mlp(2, 1), 1e-3)
    snapshots[name] = [players[0][0](noise(0, 5, 500)).numpy()]
    for part in range(4):
        first, rounds = tf.constant(ROUNDS * part), tf.constant(ROUNDS)
        play(*players, losses, tf.constant(turns), eight, first, rounds)
        snapshots[name].append(players[0][0](noise(0, 5, 500)).numpy())

# %% [markdown]
# ### 5.3 Show the results

# %%
figure, panels = figures.axes(len(GAMES), 5, width=2.1, height=2.1)
for row, (name, clouds) in zip(panels.reshape(-1, 5), snapshots.items()):
    for part, (panel, points) in enumerate(zip(row, clouds)):
        panel.plot(*CENTRES.T, "o", color="0.6", markersize=12, fillstyle="none")
        panel.plot(*points.T, ".", color="black", markersize=2)
        panel.set(xlim=(-1, 4.5), ylim=(-2.5, 2.5), title=f"round {ROUNDS * part}", xlabel="x₁")
    row[0].set_ylabel(f"{name}\nx₂", fontsize=8)
figures.show(figure, "Generated points (black) and the eight places (circles), round by round.")

# %%
ring_table = pd.DataFrame.from_dict(
    {
        name: {
            "places served": places_served(clouds[-1]),
            "Wasserstein distance": wasserstein(clouds[-1], eight[:500]),
        }
        for name, clouds in snapshots.items()
    },
    orient="index",
)
ring_table.round(2)

# %% tags=["nbval-check-output"]
served, distance = ring_table["places served"], ring_table["Wasserstein distance"]
weak, strong, penalty = GAMES
print("−ln D, weak: half of the places at most are served:", served[weak] <= 4)
print("−ln D, strong: more than with the weak one:", served[strong] > served[weak])
print("critic with penalty: six or more:", served[penalty] >= 6)
print("and less than half as far:", distance[penalty] < distance[weak] / 2)

# %% [markdown]
# **What happened, and why.** For a *fixed* discriminator, or critic, the best answer of a generator is a single
# point: the place that looks most real. A generator in a hurry comes near to this answer. Then the
# discriminator learns that this place is suspicious, the points move on together, and so forth: they
# chase around and never spread. The critic has more time than the generator, so it knows where points are
# too many *and* where they are missing, and its slope sends each point on the way of the best plan.
#
# In the first row the points travel together, past one place after another, and serve few of them at the end. In the second
# they spread: in this small game, more time for the discriminator cures much of the collapse. In the third they spread, too,
# and with all the rounds of `standard` they close the ring; the distance is then the smallest of the three. (So it was with
# each seed that we tried. `quick` stops while the ring is still filled.)
#
# ## 6. Experiment 4 · Images
#
# ### 6.1 Prepare the data
#
# The book draws faces: CelebA, 202,599 photos of celebrities, cut to the middle 108 × 108 pixels and
# scaled to 64 × 64. They may be used for research only, and weigh more than a gigabyte. So our sizes are:
#
# | | data | images | side | channels in the last block | batch | Adam's rate | passes over the data | generator steps |
# |---|---|---|---|---|---|---|---|---|
# | `quick` | part of Fashion-MNIST that ships with the course | 5,000 | 32 | 16 | 32 | 0.001 | 2 | 62 |
# | `standard` | Fashion-MNIST | 60,000 | 32 | 32 | 32 | 0.001 | 36 | 13,500 |
# | `full` | CelebA through TensorFlow Datasets | 182,637 | 64 | 64 | 64 | 0.0001 | 25 | 14,250 (book 15,825) |
#
# (The last row has the book's networks, but for the critic's batch normalisation, and its rate, batch and passes.) What a
# short training lacks is steps. So `standard` has half the channels and half the batch: a step then costs a fraction of the
# arithmetic, and nearly as many as the book's fit in. Both small trainings have ten times the rate of the book, found by
# trying. Section 8 has faces,
# too. The images of Fashion-MNIST get a margin of two black pixels, to have a side that can be halved down to 4. All
# values become $[-1, 1]$, the range of the generator's tanh.
#
# > **Note on the book.** It trains on all images, the test part included. We keep that part back: section
# > 7 compares with images that the networks have never seen. It also swaps the sizes of two
# > parts (validation has 19,867 images, test 19,962), and calls validation the verification set.

# %%
figures.source(image_array)

# %%
name = run.scale(quick="fashion_mnist_sample", standard="fashion_mnist", full="celeb_a")
parts = tfds.load(
    name, split=[run.scale(quick="train", standard="train", full="train+validation"), "test"],
    data_dir=data.tfds_dir(name),
)  # fmt: skip
crop, size = run.scale(quick=(32, 32), standard=(32, 32), full=(108, 64))
train, held_out = (image_array(part, crop, size) for part in parts)
PRIVATE = run.scale(quick=False, standard=False, full=True)  # photos of CelebA may not be shown
print(train.shape, train.dtype, "· held out", len(held_out))


# %% tags=["definition"]
def to_bytes(images):
    """Return images with values in [−1, 1] as uint8."""
    return np.clip(np.round(127.5 * (np.asarray(images) + 1)), 0, 255).astype("uint8")


def tile(images, columns=10):
    """Return one picture of all images, row by row: uint8, (n, h, w, c) -> (rows h, columns w, 3)."""
    images = np.repeat(images, 3 // images.shape[-1], axis=-1)
    height, width = images.shape[1:3]
    rows = images.reshape(-1, columns, height, width, 3).swapaxes(1, 2)
    return rows.reshape(-1, columns * width, 3)


# %% [markdown]
# > **Note on the book.** Its `combine_images` mixes up rows and columns, which goes unnoticed as long as
# > there are ten of each.

# %%
caption = "Sixty training images."
figures.images([tile(train[:60], 20)], [""], caption, columns=1, size=7.2, private=PRIVATE)

# %% [markdown]
# ### 6.2 Build and train
#
# The book's networks (after DCGAN, Radford et al., 2016). A *transposed convolution* with stride 2
# doubles the side: each input number adds a copy of the kernel, scaled by it, to the output; the copies of neighbours
# lie two pixels apart. The generator grows from 1 × 1 to 4 × 4, 8 × 8, … and halves the channels
# each time; the critic is its mirror image. At 32 pixels there is one block less. LeakyReLU keeps a slope
# of 0.3 on the negative side, so no unit dies.
#
# The critic's score and the tanh are float32 also where the rest is in short numbers (lab 4).


# %% tags=["definition"]
LATENT_DIM = 128  # as in the book


def make_generator(size=64, channels=3, width=64):
    """Return the book's generator: (128,) -> (size, size, channels) in [−1, 1].

    `width` is the number of channels in the last block; each block before has twice as many.
    """
    stack = [keras.Input((LATENT_DIM,)), layers.Reshape((1, 1, LATENT_DIM))]
    for number in reversed(range(int(np.log2(size)) - 2)):
        first = len(stack) == 2  # from 1 × 1 to 4 × 4; all others double the side
        stride, padding = (1, "valid") if first else (2, "same")
        kernels = {"kernel_size": 4, "strides": stride, "padding": padding, "use_bias": False}
        stack += [layers.Conv2DTranspose(width * 2**number, **kernels)]
        stack += [layers.BatchNormalization(), layers.LeakyReLU()]
    stack += [layers.Conv2DTranspose(channels, 4, 2, "same", use_bias=False)]
    return keras.Sequential([*stack, layers.Activation("tanh", dtype="float32")], name="generator")


def make_critic(size=64, channels=3, width=64):
    """Return the book's discriminator without batch normalisation: images -> scores (1,)."""
    stack = [keras.Input((size, size, channels))]
    for number in range(int(np.log2(size)) - 2):
        stack += [layers.Conv2D(width * 2**number, 4, 2, "same"), Leaky()]
    stack += [layers.Conv2D(1, 4, dtype="float32"), layers.Flatten(dtype="float32")]
    return keras.Sequential(stack, name="critic")


# %% tags=["nbval-check-output"]
for side, channels in [(64, 3), (32, 1)]:
    for network in (make_generator(side, channels), make_critic(side, channels)):
        convolutions = [layer for layer in network.layers if hasattr(layer, "kernel")]
        shapes = " ".join("×".join(map(str, layer.output.shape[1:])) for layer in convolutions)
        print(f"{network.name:9} {network.count_params():9,} parameters  {shapes}")

# %% [markdown]
# The 3,808,000 of the first line are those of the book's generator. Without the shift of batch
# normalisation, the critic's inner layers need biases, 896 at 64 pixels. (The book's critic, with batch normalisation,
# has 2,767,425 parameters.)
#
# Now the training. In one *generator step* the critic takes five steps, each with its own batch of real
# images, and then the generator takes one. `fit` hands over all five batches at once, (5, batch, height,
# width, channels); all else is in `train_step` (lab 6). Both kinds of steps are `tf.function`s: each is
# traced once, although `train_step` calls one of them five times.
#
# A generator that follows a critic swings: from one step to the next a shoe becomes a boot and back. So we keep a
# second one, whose weights are a running mean of the first one's, over about the last tenth of the steps so far, 200 at
# most (an *exponential moving average*; the book has none). It takes no part in the game. It is what we look at, judge and save.
#
# Random numbers come from a `SeedGenerator`: it is part of the model's state, like the weights, so a
# training that was stopped goes on with the numbers that it would have had. First who plays and in what
# order:


# %% tags=["definition"]
CRITIC_STEPS = 5  # for each step of the generator, as in the book


class Game(keras.Model):
    """Generator and critic; `fit` takes uint8 (critic steps, batch, height, width, channels)."""

    def __init__(self, generator, critic, seed=0):
        super().__init__()
        self.generator, self.critic = generator, critic
        self.average = keras.models.clone_model(generator)
        self.average.set_weights(generator.get_weights())
        self.seeds = keras.random.SeedGenerator(seed)
        names = ("critic_loss", "gradient_penalty", "generator_loss")
        self.trackers = [keras.metrics.Mean(name) for name in names]

    def compile(self, generator_optimizer, critic_optimizer, **options):
        super().compile(generator_optimizer, auto_scale_loss=False, **options)
        self.critic_optimizer = critic_optimizer
        generator_optimizer.build(self.generator.trainable_variables)
        critic_optimizer.build(self.critic.trainable_variables)

    @property
    def metrics(self):
        return self.trackers

    def train_step(self, batches):
        for images in tf.unstack(tf.cast(batches, tf.float32) / 127.5 - 1):
            for tracker, value in zip(self.trackers, self.critic_step(images)):
                tracker.update_state(value)
        self.trackers[2].update_state(self.generator_step(batches.shape[1]))
        self.follow()
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def follow(self):
        """Move the average a little towards the generator: by 9 / (10 + step), at least 0.005."""
        share = tf.maximum(9 / (10 + tf.cast(self.optimizer.iterations, tf.float32)), 0.005)
        for mean, now in zip(self.average.variables, self.generator.variables):
            mean.assign_add(share * (now - mean))


# %% [markdown]
# Then what each learns in its step. Scores of real and of generated images are computed together, in one
# batch. The generator runs with `training=True` also in the steps of the critic, because that is how it
# will be trained: its batch normalisation uses the batch. So its running means move with every step; its
# weights must not.


# %% tags=["definition"]
class WGAN(Game):
    """A game in which the critic estimates the Wasserstein distance, with gradient penalty."""

    def latents(self, n):
        """Return n latent points."""
        return keras.random.normal((n, LATENT_DIM), seed=self.seeds)

    @tf.function
    def critic_step(self, real):
        """Improve the critic on images in [−1, 1]; return loss (without penalty) and penalty."""
        n = real.shape[0]
        fake = self.generator(self.latents(n), training=True)
        share = keras.random.uniform((n,), seed=self.seeds)
        with tf.GradientTape() as tape:
            scores = self.critic(tf.concat([fake, real], axis=0))
            loss = tf.reduce_mean(scores[:n]) - tf.reduce_mean(scores[n:])
            penalty = gradient_penalty(self.critic, real, fake, share)
            total = self.critic_optimizer.scale_loss(loss + PENALTY_WEIGHT * penalty)
        gradients = tape.gradient(total, self.critic.trainable_variables)
        self.critic_optimizer.apply(gradients, self.critic.trainable_variables)
        return loss, penalty

    @tf.function
    def generator_step(self, n):
        """Improve the generator on n latent points; return its loss."""
        with tf.GradientTape() as tape:
            fake = self.generator(self.latents(n), training=True)
            loss = -tf.reduce_mean(self.critic(fake))
            total = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(total, self.generator.trainable_variables)
        self.optimizer.apply(gradients, self.generator.trainable_variables)
        return loss


# %% [markdown]
# Does each step move its own network only? (Random pictures, narrow networks.)


# %% tags=["definition"]
def make_wgan(images, width, learning_rate):
    """Return an untrained WGAN for such images, (n, size, size, channels), compiled.

    The optimisers multiply the loss by 1024 and divide the gradients by it, which keeps small ones
    above the smallest float16 number, where the graphics card computes in these.
    """
    size, channels = images.shape[2:]
    keras.utils.set_random_seed(run.seed)
    with run.fast():
        networks = make_generator(size, channels, width), make_critic(size, channels, width)
    wgan = WGAN(*networks, seed=run.seed)
    settings = {"beta_1": 0.5, "beta_2": 0.9, "loss_scale_factor": 1024.0}
    adams = (keras.optimizers.Adam(learning_rate, **settings) for _ in range(2))
    wgan.compile(*adams, jit_compile=run.jit_compile)
    return wgan


# %% tags=["nbval-check-output"]
pictures = tf.random.stateless_uniform((8, 8, 8, 1), seed=(11, 3), minval=-1)
toy = make_wgan(pictures, width=4, learning_rate=1e-3)
steps = {
    "critic": lambda: toy.critic_step(pictures),
    "generator": lambda: toy.generator_step(8),
}
for name, step in steps.items():
    networks = (toy.generator, toy.critic)
    before = [[w.numpy() for w in network.trainable_variables] for network in networks]
    step()
    same = [
        all(np.array_equal(a, b) for a, b in zip(weights, network.trainable_variables))
        for weights, network in zip(before, networks)
    ]
    print(f"step of the {name:9}: generator moves {not same[0]}, critic moves {not same[1]}")
print("new latent points each time:", not np.array_equal(toy.latents(8), toy.latents(8)))

# %% [markdown]
# ### A training that can be stopped
#
# `run.callbacks` keeps weights, both optimisers, the state of the random numbers and what the callbacks
# have collected (lab 6). One thing is left: the order of the batches. `Dataset.shuffle` remembers how far
# it is, and in a new process it begins anew. `Shuffled` computes the order from the seed and the number
# of the epoch, so any epoch can be dealt again. (A test of the course kills a small training, lets it go on, and compares
# all that it learned with an uninterrupted one: equal to 0.000001.)

# %%
figures.source(order.Shuffled)

# %% [markdown]
# After every so many generator steps (the book: 100) a callback draws the same hundred latent points, for TensorBoard and
# for us. The losses beside them are means since the epoch began.


# %% tags=["definition"]
class SampleGrid(keras.callbacks.Callback):
    """Draw the same latent points (100, 128) after every so many steps: 10 × 10 in `grids`."""

    def __init__(self, latents, every, folder):
        super().__init__()
        self.latents, self.every, self.folder, self.grids = latents, every, str(folder), []

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(self.folder)
        self.draw(step=0, logs={})

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
        if step % self.every == 0:
            self.draw(step, logs)

    def draw(self, step, logs):
        images = self.model.average(self.latents, training=False)
        self.grids.append(tile(to_bytes(images)))
        with self.writer.as_default(step=step):
            tf.summary.image("generated", self.grids[-1][None])
            for name, value in logs.items():
                tf.summary.scalar(name, value)

    def on_train_end(self, logs=None):
        self.writer.close()


# %% tags=["definition"]
def train_wgan(name, images, epochs, every, width, learning_rate, batch_size=64):
    """Build and fit a WGAN on images, uint8; return it, its history, and a grid for `every` steps."""
    wgan = make_wgan(images, width, learning_rate)
    shuffled = order.Shuffled(images, (CRITIC_STEPS, batch_size), run.seed)
    latents = tf.random.stateless_normal((100, LATENT_DIM), seed=(run.seed, 11))
    grid = SampleGrid(latents, every, run.log_dir / name / "grid")
    code = [inspect.getsource(function) for function in (slope, gradient_penalty)]
    history = wgan.fit(
        shuffled.batches, epochs=epochs, verbose=0, shuffle=False,
        callbacks=run.callbacks(
            name, shuffled, grid, data=[images, *code, f"{PENALTY_WEIGHT} {batch_size} {every}"]
        ),
    )  # fmt: skip
    steps = int(wgan.optimizer.iterations)
    print(f"{name}: {steps} steps of the generator in {history.seconds:.0f} s")
    return wgan, history, grid.grids


# %% [markdown]
# **Predict first:** what will be right early, outlines or details? What will the critic's estimate of the
# distance do, rise or fall? (Both networks learn.)
#
# While this cell runs you may interrupt it, or close the notebook. *Run All* goes on after the last whole
# epoch.

# %%
BATCH_SIZE = run.scale(quick=32, standard=32, full=64)
epochs = run.scale(quick=2, standard=36, full=25)
every = run.scale(quick=15, standard=900, full=1000)
settings = {
    "width": run.scale(quick=16, standard=32, full=64),
    "learning_rate": run.scale(quick=1e-3, standard=1e-3, full=1e-4),
}
wgan, history, grids = train_wgan("wgan", train, epochs, every, batch_size=BATCH_SIZE, **settings)

# %% [markdown]
# ### 6.3 Show the results

# %%
curves = {
    "distance, as the critic says": [-value for value in history.history["critic_loss"]],
    "gradient penalty": history.history["gradient_penalty"],
}
figure, panels = figures.axes(1, 2, width=4)
for panel, (name, values) in zip(panels, curves.items()):
    panel.plot(range(1, 1 + len(values)), values, marker="o", markersize=3)
    panel.set(xlabel="epoch", ylabel=name)
    panel.xaxis.get_major_locator().set_params(integer=True)
figures.show(figure, "Means of each epoch: the critic's estimate of the distance, and the penalty.")

# %%
stages = np.unique(np.geomspace(1, len(grids), 4).round().astype(int)) - 1
corner = 5 * size  # 25 of the hundred images
figures.images(
    [grids[stage][:corner, :corner] for stage in stages],
    [f"step {every * stage}" for stage in stages],
    "The same 25 latent points at four moments of the training.", columns=4, size=2.3,
)  # fmt: skip

# %%
figures.images([grids[-1]], [""], "The same hundred latent points at the end.", columns=1, size=7.2)

# %%
figures.animation(
    [grid[:corner, :corner] for grid in grids],
    f"The 25 images as an animation: one picture for every {every} steps of the generator.",
)

# %% [markdown]
# **What happened, and why.** At first the hundred images are one: a grey fog. Then come outlines, then
# kinds (shoes, trousers, pullovers), then folds and patterns; bags and sandals are the hardest. (`quick` stops at
# coarse blots.) The critic's estimate of the distance falls from epoch to epoch, steeply at first: the generator makes it
# smaller. (In the very first steps it must rise, since a new critic sees no difference at all; the mean of the first epoch
# hides that.) A number that falls while the images get better is what the minimax game lacks. The penalty falls with it, as
# section 4 says: the cheapest slope is $1 + d/(2\lambda)$, and $d$ gets smaller.
#
# > **Note on the book.** In its program `os` is not imported, and the name of the picture in TensorBoard
# > is not defined. A comment gives 1 as the learning rate; it is 0.0001. The folder of the logs has two names,
# > `logs-wgan` and `logs_wgan`; the size of a photo is printed as 2181783 (218 × 178 × 3). Weights go to files that end
# > in `.h5`; Keras 3 wants `.weights.h5`.
#
# TensorBoard has the grids with a slider (page *Images*) and all losses:

# %%
run.tensorboard()

# %% [markdown]
# What lies between two latent points? If the generator had only memorised images, one would jump to the next. We do not go
# along the straight line: 128 random numbers nearly always have a length near
# $\sqrt{128}$, the middle of the line is shorter, and the generator has hardly ever met such points. So
# we walk along the arc.


# %% tags=["definition"]
def arc(a, b, shares):
    """Return points on the arc from a to b: twice (d,), shares (n,) in [0, 1] -> (n, d)."""
    angle = np.arccos(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
    shares = np.asarray(shares)[:, None]
    return (np.sin((1 - shares) * angle) * a + np.sin(shares * angle) * b) / np.sin(angle)


def sample(generator, latents):
    """Return the images of latent points (n, 128): uint8."""
    return to_bytes(generator.predict(latents, batch_size=100, verbose=0))


# %%
ends = np.random.default_rng(run.seed).normal(size=(12, LATENT_DIM))
walks = np.concatenate([arc(*pair, np.linspace(0, 1, 10)) for pair in ends.reshape(6, 2, -1)])
figures.images(
    [tile(sample(wgan.average, walks))], [""],
    "Six walks, one a row, from one latent point (left) to another (right).", columns=1, size=7.2,
)  # fmt: skip

# %% [markdown]
# Does a picture turn into the next, or does it jump? In `standard` most rows change little by little, and between two kinds
# lie pictures that are neither. (`quick` has only blots.) Section 7.2 asks again, by numbers.
#
# The generator is what one keeps. Saved and loaded, it must draw the same, to one grey level:

# %% tags=["nbval-check-output"]
file = run.log_dir / "models" / run.profile / "generator.keras"
file.parent.mkdir(parents=True, exist_ok=True)
wgan.average.save(file)
loaded = keras.saving.load_model(file)
drawn = [sample(generator, walks).astype(int) for generator in (wgan.average, loaded)]
print("same images:", np.abs(drawn[0] - drawn[1]).max() <= 1)

# %% [markdown]
# ## 7. How good are they?
#
# ### 7.1 A distance of images
#
# Eyes see what they want to see. A common measure (Heusel et al., 2017) sends many real and many
# generated images through a network that was trained to recognise things, takes the features in front of
# its classifier, and compares their means $\mu$ and covariances $\Sigma$. For two normal
# distributions the Wasserstein distance whose cost is the *squared* length has a formula:
#
# $$F = \|\mu_1 - \mu_2\|^2 + \operatorname{tr}\!\Big(\Sigma_1 + \Sigma_2 - 2 \big(\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2}\big)^{1/2}\Big),$$
#
# the *Fréchet distance*. The usual network is Inception-v3 (then it is called *Fréchet inception distance*, FID); ours is
# the EfficientNet-Lite0 that ships
# with the course (1,280 features, images scaled to 96 × 96, grey ones in three equal channels). **So our
# numbers cannot be compared with those of papers.** Two ends of a scale give them a meaning: real images against other
# real images, and the images of the untrained generator.
#
# The root of a matrix is computed from its eigenvalues, in float64. With fewer images than features most of them are 0,
# and the root enlarges their rounding errors; so in `quick` we add a small number to the diagonal (a *ridge*).


# %% tags=["definition"]
def frechet(reference, others, ridge=0.0):
    """Return the Fréchet distance of each of `others` from `reference`, all of them (n, features)."""

    def fit(values):
        values = np.asarray(values, "float64")
        return values.mean(axis=0), np.cov(values, rowvar=False) + ridge * np.eye(values.shape[1])

    mean, covariance = fit(reference)
    sizes, directions = linalg.eigh(covariance)
    root = (directions * np.sqrt(np.maximum(sizes, 0))) @ directions.T
    distances = []
    for other_mean, other_covariance in map(fit, others):
        sizes = linalg.eigvalsh(root @ other_covariance @ root)
        spread = np.trace(covariance + other_covariance) - 2 * np.sqrt(np.maximum(sizes, 0)).sum()
        distances.append(float(np.sum((mean - other_mean) ** 2) + spread))
    return distances


# %% tags=["nbval-check-output"]
cross = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])  # variances 2/3, no correlation
moved = 2 * cross + [3, 4]  # mean 5 away, twice as wide
print("itself {:.4f}, moved and widened {:.4f}".format(*np.abs(frechet(cross, [cross, moved]))))
print(f"by hand: 3² + 4² + 2 · (2 - 1)² · 2/3 = {25 + 2 * 2 / 3:.4f}")


# %% tags=["definition"]
def make_features():
    """Return EfficientNet-Lite0 without classifier: photos (96, 96, 3) in [0, 1] -> (1280,)."""
    network = backbones.backbone("efficientnet_lite0", (96, 96, 3))
    return keras.Model(network.inputs, layers.GlobalAveragePooling2D()(network.output))


def features(network, images):
    """Return the features of images, uint8, (n, height, width, 1 or 3) -> (n, 1280)."""

    def prepare(batch):
        photos = tf.image.resize(tf.cast(batch, tf.float32) / 255, (96, 96))
        return tf.concat([photos] * (3 // images.shape[-1]), axis=-1)

    batches = tf.data.Dataset.from_tensor_slices(images).batch(100).map(prepare)
    return network.predict(batches, verbose=0)


# %% [markdown]
# **Before you run the cell:** on a scale from 0 (real against real) to 1 (untrained), where will our
# images be?

# %%
n = run.scale(quick=100, standard=5000, full=5000)
latents = np.random.default_rng(run.seed).normal(size=(n, LATENT_DIM)).astype("float32")
untrained = make_wgan(train, **settings).generator
generated = sample(wgan.average, latents)
image_sets = {
    "real": held_out[n : 2 * n], "untrained": sample(untrained, latents), "generated": generated
}  # fmt: skip
lite = make_features()
reference = features(lite, held_out[:n])
distances = frechet(
    reference, [features(lite, images) for images in image_sets.values()],
    ridge=run.scale(quick=1e-3, standard=0.0, full=0.0),
)  # fmt: skip

# %%
real_end, untrained_end, reached = distances
run.record(frechet_real=real_end, frechet_untrained=untrained_end, frechet=reached)
run.record(frechet_relative=(reached - real_end) / (untrained_end - real_end))
table = pd.DataFrame({"Fréchet distance from real images": distances}, index=list(image_sets))
table["place on the scale"] = (table.iloc[:, 0] - real_end) / (untrained_end - real_end)
table.round(3)

# %% [markdown]
# `frechet_relative` is the place on the scale from 0 to 1. The first end is not 0 although both sets are
# real: covariances of 1,280 features, estimated from few images, differ by chance. That is why a Fréchet
# distance without the number of images means nothing. (After the two passes of `quick` our images stand beyond 1: the
# grey fog of an untrained generator is nearer to garments than the first coarse blots.)
#
# ### 7.2 Are they copies?
#
# The Fréchet distance would love a generator that has learned the training images by heart. So we look
# for the nearest training image, pixel by pixel: of each generated image, and, to compare, of each
# held-out image, from which the generator has never learned. And to test the test: of copies, training images shifted by one
# pixel.
# **Predict first:** where in the histogram will those stand? (In `full`, among 20,000 of the training images.)


# %% tags=["definition"]
def nearest(rows, others):
    """Return the distance of each row to the nearest of others, and its place: (n, d), (m, d)."""
    squares = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * rows @ others.T
    return np.sqrt(np.maximum(squares.min(axis=1), 0)), squares.argmin(axis=1)


def pixels(images):
    """Return uint8 images as rows of float32, so that a distance is a root mean square in [0, 1]."""
    rows = images.reshape(len(images), -1).astype("float32") / 255
    return rows / np.sqrt(rows.shape[1], dtype="float32")


def histograms(panel, sets, xlabel):
    """Draw a histogram for each set of numbers over a common axis."""
    bins = np.linspace(0, max(map(np.max, sets.values())), 40)
    for (name, values), dash in zip(sets.items(), figures.DASHES):
        panel.hist(values, bins, histtype="step", linewidth=1.8, linestyle=dash, label=name)
    panel.set(xlabel=xlabel, ylabel="number of images")
    panel.legend(fontsize=8)


# %%
few = slice(200)
known = pixels(train[: run.scale(quick=5000, standard=60_000, full=20_000)])
ways, places = nearest(pixels(generated[few]), known)
nearest_ways = {
    "generated": ways,
    "held out": nearest(pixels(held_out[few]), known)[0],
    "copies, shifted": nearest(pixels(np.roll(train[few], 1, axis=2)), known)[0],
}
figure, (panel,) = figures.axes(width=5)
histograms(panel, nearest_ways, "distance to the nearest training image (root mean square)")
figures.show(figure, "How far generated, held-out and copied images are from the training images.")

# %%
for images, caption, private in [
    (generated[:12], "Twelve generated images.", False),
    (train[places[:12]], "The training images that are nearest to these.", PRIVATE),
]:
    figures.images([tile(images, 12)], [""], caption, columns=1, size=7, private=private)

# %% [markdown]
# **What happened, and why.** An exact copy would stand at 0; no generated image does, and on the whole they are no nearer
# than held-out ones. But look at the shifted copies: they stand as far off as images that are no copies at all. Nobody
# sees a shift by one pixel; the distance of pixels does, wherever a white garment ends and a black ground begins. So for
# these garments it can tell exact copies, and no others. (For faces, which have fewer hard edges, it tells more: section 8.)
# It also favours smooth images: a blurred one is near to many. That is why one
# looks at the pairs, too, and why section 8 compares features as well.
#
# ### 7.3 How fast is it?
#
# How much arithmetic does a generator step take? Let $g$ and $c$ be the operations of one image through
# generator and critic (a multiplication and an addition are two). A layer's gradient costs as much again
# for its kernel, and as much again for its input. For each of the five batches, and each image in it:
#
# | what | operations |
# |---|---|
# | generate | $g$ |
# | scores of real, generated and mixed image | $3c$ |
# | their gradients for kernels and inputs, real and generated | $4c$, less $2c_1$: nobody needs the gradient for the image |
# | slope of the mixed image | $c$ |
# | gradient of the slope, for kernels and for what came down to them | $2c$ |
#
# and once for the generator $3g + 2c$, less $g_1$. So the critic's steps cost $5 \, (g + 10 c - 2 c_1)$:
# about nine tenths of the whole.


# %% tags=["definition"]
def operations(network):
    """Return the operations of one image in each layer with a kernel, a list."""
    counts = []
    for layer in network.layers:
        if hasattr(layer, "kernel"):
            transposed = isinstance(layer, layers.Conv2DTranspose)  # a kernel for each input
            height, width = (layer.input if transposed else layer.output).shape[1:3]
            counts.append(2 * int(np.prod(layer.kernel.shape)) * height * width)
    return counts


def step_operations(generator, critic, batch_size=64):
    """Return the operations of a generator step with its critic steps."""
    (g, g1), (c, c1) = ((sum(n), n[0]) for n in map(operations, (generator, critic)))
    return batch_size * (CRITIC_STEPS * (g + 10 * c - 2 * c1) + 3 * g - g1 + 2 * c)


# %% tags=["nbval-check-output"]
for side, channels in [(64, 3), (32, 1)]:
    networks = make_generator(side, channels), make_critic(side, channels)
    g, c = (sum(operations(network)) / 1e6 for network in networks)
    step = step_operations(*networks) / 1e9
    print(f"{side} pixels: g = {g:.1f} million, c = {c:.1f} million, a step {step:.0f} billion")

# %% [markdown]
# The ceiling is what this machine reaches in the same numerics when it does nothing but convolve. (What
# is not a convolution counts as time, not as work; so does building the graph in the first step, which in
# `quick` is a large part.)

# %%
dtype = keras.DTypePolicy(run.numerics).compute_dtype
shapes = run.scale(
    quick=[(64, 32, 64)], standard=[(128, 16, 256), (128, 8, 512)], full=[(128, 16, 256), (128, 8, 512)]
)  # fmt: skip
ceiling = max(machine.ceiling(dtype, shapes).values())
steps = int(wgan.optimizer.iterations)
operations_done = steps * step_operations(wgan.generator, wgan.critic, BATCH_SIZE)
gflops = operations_done / history.seconds / 1e9
run.record(images_per_second=CRITIC_STEPS * BATCH_SIZE * steps / history.seconds)
run.record(share_of_ceiling=gflops / ceiling)
print(f"{gflops:.0f} of {ceiling:.0f} GFLOP/s in {dtype}")

# %% [markdown]
# ## 8. Further · Faces
#
# The study `labs/studies/11_faces.py` trained the book's generator, and its critic without batch normalisation, at 64
# pixels on 9,000 faces of CelebA: the middle 54 × 54 pixels of copies at half size, enlarged to 64, in 30 passes with
# batches of 32 and a rate of 0.0002 (the book: all 202,599 faces, 25 passes, 64, 0.0001). These photos are for research
# only, so neither they nor the network's weights are part of the course, and no photo is shown. The faces below were drawn
# by the generator: these people do not exist.
# *The two pictures are not covered by the licence of the course's text and figures.*


# %% tags=["definition"]
import base64, io
import PIL.Image


def decoded(texts):
    """Return the picture that a study keeps as text."""
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode("".join(texts)))))


# %%
studied = results.study("11_faces")
assert studied, "measure the study: python -m tools.study 11_faces"
faces = studied[0]["metrics"]
print(f"{faces['steps']} steps of the generator in {studied[0]['seconds'] / 60:.0f} minutes,",
      f"{faces['images_per_second']:.0f} images a second")  # fmt: skip
print(studied[0]["machine"]["processor"], studied[0]["numerics"])
figures.images([decoded(faces["grid"])], [""], "A hundred generated faces.", columns=1, size=7.2)

# %%
figures.images(
    [decoded(faces["strip"])], [""],
    f"Ten latent points after {', '.join(map(str, faces['strip_steps']))} steps, from top to bottom.",
    columns=1, size=7.2,
)  # fmt: skip

# %% [markdown]
# Are they copies? Again the nearest of the training faces, this time also by the 1,280 features, for
# which a shift, or another background, counts less:

# %%
figure, panels = figures.axes(1, 2, width=4.3)
for panel, space in zip(panels, ("pixels", "features")):
    histograms(panel, faces[f"nearest_{space}"], f"distance to the nearest training face, {space}")
figures.show(
    figure, "Generated faces, faces held out, and shifted copies: how near is the nearest?"
)

# %% [markdown]
# **What happened, and why.** One sees faces at once, and one sees that nobody photographed them: eyes of two kinds, a
# forehead that runs into the background. The strip shows how they came: first a light oval with dark hair around it, then
# eyes and mouth, then a person. The generated faces are a little farther from the training faces than faces held out are, by
# pixels and by features, and hardly any is as near as the shifted copies, which stand on the left. So they are
# neither copies nor copies shifted by one pixel; mirrored or cut ones were not tested.
#
# ## 9. Results
#
# The book prints pictures and curves, and no number. So every number here, and the bar, is ours:
# `frechet_relative` in `standard` must be at most 0.1. `frechet_…` are Fréchet distances as in 7.1;
# `quick` uses few images and a ridge, so its numbers cannot be compared with those of `standard`.
# `images_per_second` counts real images that the critic saw; `share_of_ceiling` is the share of 7.3.

# %%
run.table()

# %% [markdown]
# ## 10. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · Wasserstein distance on a line
#
# For two equally long lists of *numbers* the best plan needs no search: the smallest goes to the
# smallest, the second to the second, and so on. Return the mean distance.


# %% nbgrader={"grade": false, "grade_id": "wasserstein_line", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def wasserstein_line(x, y):
    """Return the Wasserstein distance of two lists of numbers, twice (n,)."""
    ### BEGIN SOLUTION
    return np.mean(np.abs(np.sort(x) - np.sort(y)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "wasserstein_line_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(wasserstein_line) as check:
    check(wasserstein_line([-1.0], [2.0]), 3.0, "a distance is never negative")
    check(
        wasserstein_line([0.0, 0.0], [1.0, 1.0]),
        1.0,
        "the mean distance, not the sum of all distances",
    )
    check(
        wasserstein_line([0.0, 0.0], [1.0, 3.0]), 2.0, "the mean of the distances, without squares"
    )
    hint = "sort both lists: each number goes to the one of the same rank"
    check(wasserstein_line([3.0, 1.0, 2.0], [1.0, 2.0, 3.0]), 0.0, hint)
    check(
        wasserstein_line([0.0, 4.0], [1.0, 3.0]), 1.0, "first the distances, then the mean of them"
    )

# %% [markdown]
# ### Exercise 2 · A one-sided penalty
#
# The condition is "nowhere steeper than 1": a slope of 0.5 is allowed. Write the penalty that punishes
# only slopes above 1: the mean over the points of $\max(0, \|\nabla D\| - 1)^2$. The points may be
# images, too. Compute everything with TensorFlow, on a tape of your own (`slope` is not in the set-up cell): a training needs
# the gradient of the penalty for the critic's weights. Add 1e-12 under the root.


# %% nbgrader={"grade": false, "grade_id": "one_sided_penalty", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def one_sided_penalty(critic, points):
    """Return the mean of max(0, slope − 1)² at the points: a tensor (n, …), critic -> scores."""
    ### BEGIN SOLUTION
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    squares = tf.square(tape.gradient(scores, points))
    slopes = tf.sqrt(tf.reduce_sum(squares, axis=list(range(1, len(points.shape)))) + 1e-12)
    return tf.reduce_mean(tf.square(tf.maximum(slopes - 1, 0)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "one_sided_penalty_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
def plane(points, weights=(3.0, 0.0)):
    return tf.linalg.matvec(points, weights)


with run.exercise(one_sided_penalty) as check:
    points = tf.constant([[0.25, 0.0], [1.0, 0.0]])
    check(one_sided_penalty(plane, points), 4.0, "slope 3 costs (3 − 1)²: take 1 off, then square")
    hint = "a slope below 1 costs nothing: cut off at 0"
    check(one_sided_penalty(lambda x: plane(x, (0.5, 0.0)), points), 0.0, hint)
    hint = "the slopes here are 0.5 and 2: cut off each point's own, then take the mean"
    check(one_sided_penalty(lambda x: x[:, 0] ** 2, points), 0.5, hint, 1e-4)
    hint = "of an image, the length is over all its numbers: every axis but the first"
    pictures = tf.zeros((2, 3, 3, 1))
    check(one_sided_penalty(lambda x: tf.reduce_sum(x, axis=[1, 2, 3]), pictures), 4.0, hint)
    weights = tf.constant([3.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        penalty = tf.convert_to_tensor(one_sided_penalty(lambda x: plane(x, weights), points))
    gradient = tape.gradient(penalty, weights)
    hint = "compute with TensorFlow, and inside the function: a training needs the gradient"
    check(-1.0 if gradient is None else gradient, [4.0, 0.0], hint, 1e-4)

# %% [markdown]
# ### Exercise 3 · Fréchet distance of features that are not correlated
#
# If all covariances between features are 0, matrices are not needed: with mean $\mu_j$ and standard
# deviation $\sigma_j$ of each feature,
# $F = \sum_j \big[ (\mu_{1j} - \mu_{2j})^2 + (\sigma_{1j} - \sigma_{2j})^2 \big]$. Take NumPy's standard deviation as
# it is (it divides by $n$).


# %% nbgrader={"grade": false, "grade_id": "frechet_diagonal", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def frechet_diagonal(a, b):
    """Return the Fréchet distance of two sets of features, (n, d) and (m, d), as if uncorrelated."""
    ### BEGIN SOLUTION
    means = a.mean(axis=0) - b.mean(axis=0)
    deviations = a.std(axis=0) - b.std(axis=0)
    return (means**2 + deviations**2).sum()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "frechet_diagonal_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(frechet_diagonal) as check:
    a = np.array([[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    hint = "mean and deviation of each feature: over the images (the first axis)"
    check(frechet_diagonal(a, a[::-1]), 0.0, hint)
    hint = "squared differences of the means, summed over the features"
    check(frechet_diagonal(a, np.add(a, [3.0, 4.0])), 25.0, hint)
    hint = "the difference of the standard deviations (not of the variances), squared; divide by n"
    check(frechet_diagonal(a, 3 * a), 4.0, hint)
    wide = np.add(a, [[0, -2], [0, -2], [0, 2], [0, 2]])
    check(frechet_diagonal(3 * a, wide), 8.0, "compare feature by feature, and sum at the end")

# %% [markdown]
# **Try this, too:** train `quick` with one critic step instead of five (`CRITIC_STEPS`; a pass then has five times as many
# generator steps, so compare the pictures at equal steps, too), and with λ = 1 (`PENALTY_WEIGHT`). Run all cells from the
# changed one on. What does the Fréchet distance say?
#
# ## 11. What to remember
#
# - The best discriminator measures the Jensen–Shannon divergence, which is flat where the distributions
#   do not overlap: there the loss of the game teaches nothing, and the slope of $-\ln D$ does not say how far.
# - The Wasserstein distance is the mean way that the points have to go by the best plan; a critic that is nowhere steeper
#   than 1 estimates it.
# - Clipped weights end at $\pm c$, and the slopes vanish or explode. A penalty on the slope needs a
#   gradient of a gradient, and a critic that judges each image alone.
# - A training that goes on exactly needs all its state: both networks, both optimisers, random numbers,
#   the order of the data.
# - A number for generated images needs two ends of a scale, the number of images, and a look at copies.
#
# **Read on.** Goodfellow et al., *Generative Adversarial Networks*, 2014 (arXiv:1406.2661) · Radford,
# Metz and Chintala, *Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
# Networks*, 2016
# (arXiv:1511.06434) · Arjovsky, Chintala and Bottou, *Wasserstein GAN*, 2017 (arXiv:1701.07875) ·
# Gulrajani et al., *Improved Training of Wasserstein GANs*, 2017 (arXiv:1704.00028) · Heusel et al.,
# *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, 2017 (arXiv:1706.08500) · Petzka et
# al., *On the
# Regularization of Wasserstein GANs*, 2018 (arXiv:1709.08894).

# %%
run.check()
