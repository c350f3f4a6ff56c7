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
# # Lab 8 · CNN architectures: from LeNet-5 to residual networks
#
# After this lab you can
#
# - say what a network costs (parameters, multiply-adds, memory) before it is trained, and which of these
#   tells how long it takes;
# - build LeNet-5, AlexNet, VGG, GoogLeNet, ResNet and MobileNet from their blocks, and check each against
#   the numbers that its authors printed;
# - show by experiment that a deeper plain network can be harder to train, and that shortcuts help;
# - classify photos with a network trained on ImageNet, and see where in the photo it found its answer.
#
# **Chapter 8** of the book. **Needs** labs 4 and 5 and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import backbones, data, figures, results, schedules
from preprocessing import centre_square, flip, image_batches, random_crop
import keras, numpy as np, pandas as pd, tensorflow as tf, tensorflow_datasets as tfds
from keras import layers

run = labkit.start("08_cnn_architectures")

# %% [markdown]
# ## 1. What a network costs
#
# Three numbers can be had from the shapes alone:
#
# - **Parameters**, from lab 4: $(k_h k_w C_\text{in} + 1) \cdot C_\text{out}$ for a convolution. They decide
#   how large the file is.
# - **Multiply-adds**: every weight of a kernel is used once at every place of the output, so
#   $k_h k_w C_\text{in} C_\text{out} \cdot H_\text{out} W_\text{out}$. (Biases, activations and
#   normalisation are left out, as the papers do. Some call a multiply-add *one* operation, others two.)
# - **Activations**: the outputs of all layers, 4 bytes a number in float32. A prediction needs a layer and
#   the one before it at a time. Training must keep *all* of them for the way back, for every image of the
#   batch.
#
# The calculator below works for any network of convolutions and dense layers. It looks at the weights: one
# with two or more axes is a kernel, the others (biases, normalisation) are not.


# %% tags=["definition"]
import gc, math, time
from pathlib import Path

TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
COUNTED = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D,
           layers.DepthwiseConv2D, layers.SeparableConv1D, layers.SeparableConv2D, *TRANSPOSED)  # fmt: skip


def multiply_adds(layer):
    """Return the multiply-adds of a layer (channels last) for one example."""
    kernels = [weight for weight in getattr(layer, "weights", ()) if len(weight.shape) > 1]
    if kernels and not isinstance(layer, COUNTED):
        raise ValueError(f"how often {type(layer).__name__} uses its weights is not known here")
    at = layer.input if isinstance(layer, TRANSPOSED) else layer.output
    return sum(math.prod(kernel.shape) for kernel in kernels) * math.prod(at.shape[1:-1])


def operations(model):
    """Yield the layers and operations of a model, and of the models inside it."""
    for operation in keras.Model(model.inputs, model.outputs).operations:
        inside = operations(operation) if isinstance(operation, keras.Model) else [operation]
        yield from inside


# %% tags=["definition"]
COSTS = ["parameters", "multiply-adds", "bytes"]


def cost(model):
    """Return for each layer: shape of the output, parameters, multiply-adds, bytes of the output.

    All are for one example, whose size must be fixed. Raises `ValueError` for layers with kernels
    that are neither convolutions nor dense.
    """
    rows = []
    for layer in operations(model):
        shape = layer.output.shape[1:]
        size = math.prod(shape) * tf.as_dtype(layer.output.dtype).size
        parameters = layer.count_params() if isinstance(layer, layers.Layer) else 0
        rows.append(
            (layer.name, " × ".join(map(str, shape)), parameters, multiply_adds(layer), size)
        )
    return pd.DataFrame(rows, columns=["layer", "output", *COSTS]).set_index("layer")


# %% [markdown]
# **Before you run the cell:** 200 kernels of 5 × 5 on an RGB image 150 pixels wide and 100 high, stride 1, padding
# `same`. How many parameters, how many multiply-adds, how many megabytes of output? And how many parameters
# would a *dense* layer have whose 150 × 100 units see the whole image?

# %% tags=["nbval-check-output"]
example = keras.Sequential(
    [keras.Input((100, 150, 3)), layers.Conv2D(200, 5, padding="same", name="convolution")]
)
row = cost(example).loc["convolution"]
assert row["parameters"] == (5 * 5 * 3 + 1) * 200 == example.count_params()
assert row["multiply-adds"] == 5 * 5 * 3 * 200 * 100 * 150
print(f"{row['parameters']:,} parameters, {row['multiply-adds'] / 1e6:.0f} million multiply-adds")
print(f"{row['bytes'] / 1e6:.0f} MB for one image, {row['bytes'] / 1e9 * 100:.1f} GB for 100")
print(f"dense: {(150 * 100 * 3) * (150 * 100) / 1e6:.0f} million parameters")

# %% [markdown]
# Now three layers, 3 × 3 with stride 2, on an image 200 high and 300 wide. What does a *prediction* need, and what the
# *training* with batches of 50?

# %% tags=["nbval-check-output"]
stack = [keras.Input((200, 300, 3), name="image")]
for filters in (100, 200, 400):
    stack.append(layers.Conv2D(filters, 3, strides=2, padding="same", name=f"conv_{filters}"))
table = cost(keras.Sequential(stack))
print(table.to_string())
outputs, parameters = table["bytes"] / 1e6, table["parameters"].sum()
two = (outputs + outputs.shift(fill_value=0)).max()
print(f"{parameters:,} parameters: {4 * parameters / 1e6:.1f} MB")
print(f"prediction {two + 4 * parameters / 1e6:.1f} MB")
print(f"training {50 * outputs.sum() + 4 * parameters / 1e6:.1f} MB, and more for gradients")

# %% [markdown]
# Memory runs out in training long before it does in prediction. What helps: a smaller batch, a larger
# stride early in the network, fewer layers, 16-bit numbers, several devices.
#
# ## 2. LeNet-5 (1998): the pattern
#
# LeCun's network for handwritten characters has what every later one has: convolutions (C1, C3, C5) that
# make maps smaller and more numerous, *sub-sampling* between them (S2, S4), dense layers at the end (F6,
# output). Two details are no longer used. Sub-sampling was a mean over 2 × 2 pixels, times one learned number,
# plus another, for each map, and then tanh (the book's table says sigmoid): in Keras a pooling and a depthwise 1 × 1
# convolution. And a map of C3 saw only
# *some* of the six maps of S2. That broke the symmetry between the maps, and saved weights.


# %% tags=["definition"]
C3_TABLE = [
    *([(first + step) % 6 for step in range(3)] for first in range(6)),  # three neighbours
    *([(first + step) % 6 for step in range(4)] for first in range(6)),  # four neighbours
    *([0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5]),  # two pairs
    [0, 1, 2, 3, 4, 5],  # all
]


def subsampled(x, name):
    """Mean of 2 × 2 pixels, times a number for each channel, plus another."""
    return layers.DepthwiseConv2D(1, activation="tanh", name=name)(layers.AveragePooling2D(2)(x))


def convolved_by_table(x, table, size, name):
    """One map for each row of a table, from those maps of `x` that the row names."""
    maps = []
    for number, row in enumerate(table):
        layer = layers.Conv2D(1, size, activation="tanh", name=f"{name}_{number}")
        maps.append(layer(keras.ops.take(x, row, axis=-1)))
    return layers.Concatenate(name=name)(maps)


def lenet5():
    """Return LeNet-5: (32, 32, 1) -> 10 probabilities (LeCun et al., 1998)."""
    images = keras.Input((32, 32, 1))
    x = layers.Conv2D(6, 5, activation="tanh", name="C1")(images)
    x = subsampled(x, "S2")
    x = convolved_by_table(x, C3_TABLE, 5, "C3")
    x = subsampled(x, "S4")
    x = layers.Conv2D(120, 5, activation="tanh", name="C5")(x)
    x = layers.Dense(84, activation="tanh", name="F6")(layers.Flatten()(x))
    return keras.Model(images, layers.Dense(10, activation="softmax", name="output")(x))


# %%
seen = np.array([[number in row for row in C3_TABLE] for number in range(6)])
figure, (panel,) = figures.axes(width=5, height=2.2)
panel.imshow(seen, cmap="Greys", vmax=1.5)
panel.set(xlabel="map of C3", ylabel="map of S2", xticks=range(16), yticks=range(6))
panel.grid(False)
figures.show(figure, "Which of the six maps of S2 each map of C3 sees (dark): 60 of 96 pairs.")

# %% [markdown]
# A *connection* is one input of an output value, or its bias (a sub-sampled value has 4 + 1): weights are shared, so there are far more connections
# than parameters. **Predict first:** how many parameters does C3 save against a convolution that sees all
# six maps?

# %% tags=["nbval-check-output"]
sizes = {"LeNet-5": cost(lenet5())}
table = sizes["LeNet-5"]
parts = table["parameters"].groupby(table.index.str.split("_").str[0]).sum()  # C3_0 … C3_15
connections = {}
for name in ("C1", "S2", "C3", "S4", "C5", "F6"):
    outputs, maps = table["bytes"][name] // 4, int(table["output"][name].split()[-1])
    places = outputs // maps
    connections[name] = (4 + 1) * outputs if name[0] == "S" else parts[name] * places
    print(f"{name}  {table['output'][name]:12} {parts[name]:6,} parameters",
          f"{connections[name]:8,} connections")  # fmt: skip
print(f"C3 with all maps: {(6 * 25 + 1) * 16:,} parameters")
print(f"all parameters {parts[list(connections)].sum():,}")
print(f"all connections {sum(connections.values()) + 84 * 10:,}, with those of the output")

# %% [markdown]
# 60,000 parameters and 340,908 connections are what the paper prints. Its output layer measured distances to
# ten fixed patterns; a dense layer with softmax (850 parameters) takes its place today.
#
# > **Note on the book.** Its table gives C1 22,304 connections (a digit is missing: 122,304), and C3 maps of
# > 28 × 28 and 156,000 connections. A 5 × 5 kernel makes 10 × 10 of 14 × 14, which gives 151,600.
#
# ## 3. AlexNet (2012): larger, with ReLU and dropout
#
# On ImageNet (1.2 million photos, 1,000 classes) Krizhevsky's network won the contest of 2012 by a wide
# margin. The pattern is LeNet's. New were the size, ReLU (which does not saturate where it is positive), dropout and augmentation
# against overfitting, overlapping max-pooling, and convolutions directly on convolutions. Most of its
# parameters are in the two wide dense layers, which VGG took over:


# %% tags=["definition"]
def classifier(x, classes=1000, start="zeros"):
    """Return probabilities after two wide dense layers with dropout, as in AlexNet and VGG.

    Kernels of zeros do for counting, and need a third of the memory while they are made. But they
    cannot learn, since no gradient passes them: to train, `start` with "he_normal".
    """
    x = layers.Flatten()(x)
    for width in (4096, 4096):
        x = layers.Dense(width, activation="relu", kernel_initializer=start)(x)
        x = layers.Dropout(0.5)(x)
    return layers.Dense(classes, activation="softmax", kernel_initializer=start)(x)


def relu_conv(x, filters, size, stride=1, padding="same", groups=1):
    """Convolve, then ReLU."""
    options = {"padding": padding, "groups": groups, "activation": "relu"}
    return layers.Conv2D(filters, size, stride, **options)(x)


def alexnet(top=True, groups=1, start="zeros"):
    """Return AlexNet, or without `top` its convolutions: (227, 227, 3) -> 1,000 probabilities.

    To train it, `start` with "he_normal": see `classifier`.
    """
    images = keras.Input((227, 227, 3))
    x = relu_conv(images, 96, 11, stride=4, padding="valid")
    x = layers.MaxPooling2D(3, 2)(x)
    x = relu_conv(x, 256, 5, groups=groups)
    x = layers.MaxPooling2D(3, 2)(x)
    x = relu_conv(x, 384, 3)
    x = relu_conv(x, 384, 3, groups=groups)
    x = relu_conv(x, 256, 3, groups=groups)
    x = layers.MaxPooling2D(3, 2)(x)
    return keras.Model(images, classifier(x, start=start) if top else x)


# %% tags=["nbval-check-output"]
sizes["AlexNet"] = table = cost(alexnet())
whole = table["parameters"].sum()
convolutions = alexnet(top=False).count_params()
saved = convolutions - alexnet(top=False, groups=2).count_params()
print(" → ".join(table["output"][table["multiply-adds"] > 0]))
print(f"{whole:,} parameters, {1 - convolutions / whole:.0%} of them in the dense layers")
print(f"in two groups: {whole - saved:,}")
print("first map from 227 pixels:", (227 - 11) // 4 + 1, "from 224:", (224 - 11) // 4 + 1)

# %% [markdown]
# The network was spread over two graphics cards; three of its convolutions saw only the maps of their own
# card. This is a convolution in two *groups*, and gives 61 million parameters; the paper says 60. We leave out
# its *local response normalisation*: it has no parameters, and the authors of VGG found that it does not
# help.
#
# > **Note on the book.** Its figure says 224 × 224 pixels, as the paper does, and maps of 55 × 55. These two
# > do not go together without padding; from 227 pixels they do.
#
# ## 4. VGG (2014): deep, and nothing but 3 × 3
#
# Simonyan and Zisserman asked what depth alone brings. Their networks stack 3 × 3 convolutions, in blocks
# that end with pooling; each block has twice as many channels as the one before, up to 512. Why 3 × 3? Two
# in a row see 5 × 5 pixels, with $2 \cdot 9 = 18$ weights instead of 25 for each pair of channels, and with
# one more ReLU in between. The gradient can count what an output sees:

# %% tags=["nbval-check-output"]
for depth in (1, 2, 3):
    image = tf.Variable(tf.zeros((1, 15, 15, 1)))
    with tf.GradientTape() as tape:
        x = image
        for _ in range(depth):
            x = tf.nn.conv2d(x, tf.ones((3, 3, 1, 1)), 1, "SAME")
        middle = x[0, 7, 7, 0]
    side = math.isqrt(int(tf.math.count_nonzero(tape.gradient(middle, image))))
    print(f"{depth} of 3 × 3 see {side} × {side} pixels: {9 * depth} weights instead of {side**2}")


# %% tags=["definition"]
VGG = {  # name -> 3 × 3 convolutions in each of the five blocks
    "A, 11 layers": (1, 1, 2, 2, 2),
    "B, 13 layers": (2, 2, 2, 2, 2),
    "D, VGG-16": (2, 2, 3, 3, 3),
    "E, VGG-19": (2, 2, 4, 4, 4),
}


def vgg(convolutions, top=True, start="zeros"):
    """Return VGG, or without `top` its convolutions: (224, 224, 3) -> 1,000 probabilities.

    To train it, `start` with "he_normal": see `classifier`.
    """
    images = x = keras.Input((224, 224, 3))
    for filters, repeats in zip((64, 128, 256, 512, 512), convolutions):
        for _ in range(repeats):
            x = relu_conv(x, filters, 3)
        x = layers.MaxPooling2D(2)(x)
    return keras.Model(images, classifier(x, start=start) if top else x)


# %% [markdown]
# The dense layers are the same in all of them, so we build them once.

# %% tags=["nbval-check-output"]
gc.collect()  # AlexNet is not needed any more
sizes["VGG-16"] = table = cost(vgg(VGG["D, VGG-16"]))
kernels = table[table["multiply-adds"] > 0]
print("VGG-16:", kernels.index.str.startswith("conv").sum(), "convolutions and",
      kernels.index.str.startswith("dense").sum(), "dense layers")  # fmt: skip
dense = kernels["parameters"][kernels.index.str.startswith("dense")].sum()
for name, convolutions in VGG.items():
    parameters = vgg(convolutions, top=False).count_params()
    print(f"{name:12} {parameters:10,} + {dense:,} = {parameters + dense:,} parameters")

# %%
gc.collect()  # half a gigabyte: Python would keep it for a while
run.record(million_parameters_vgg_16=sizes["VGG-16"]["parameters"].sum() / 1e6)

# %% [markdown]
# > **Note on the book.** It says that VGG-16 has 16 convolutional layers. It has 13; the number in the name
# > counts all layers with weights, the three dense ones among them.
#
# ## 5. GoogLeNet (2014): several sizes at once, at a low price
#
# How large should a kernel be? The *Inception* block does not choose: 1 × 1, 3 × 3, 5 × 5 and a pooling work
# on the same maps side by side, and their outputs are put together as channels. Made like this it would
# be expensive, and each block would have more channels than the one before (the pooling alone keeps all of
# its input's). So a 1 × 1 convolution makes fewer channels, before the 3 × 3 and the 5 × 5, and after the pooling: a
# *bottleneck*. **Predict first:** from 36 × 36 × 128 to 36 × 36 × 64 without bias,
# directly with 3 × 3, or through 16 channels. How many parameters?

# %% tags=["nbval-check-output"]
maps = keras.Input((36, 36, 128))
direct = layers.Conv2D(64, 3, padding="same", use_bias=False)
narrow = layers.Conv2D(16, 1, use_bias=False)
wide = layers.Conv2D(64, 3, padding="same", use_bias=False)
assert direct(maps).shape == wide(narrow(maps)).shape
print(f"direct {direct.count_params():,}")
print(f"bottleneck {narrow.count_params():,} + {wide.count_params():,} =",
      f"{narrow.count_params() + wide.count_params():,}")  # fmt: skip

# %% [markdown]
# A 1 × 1 convolution is a small dense layer that is applied to the channels of every pixel. It looks at no
# neighbours; it mixes channels.
#
# > **Note on the book.** Its figure of the direct convolution adds 10 for biases that are not there.


# %% tags=["definition"]
def inception(x, ones, before_threes, threes, before_fives, fives, after_pool):
    """Return the maps of four branches on the same input, put together as channels."""
    branches = [
        relu_conv(x, ones, 1),
        relu_conv(relu_conv(x, before_threes, 1), threes, 3),
        relu_conv(relu_conv(x, before_fives, 1), fives, 5),
        relu_conv(layers.MaxPooling2D(3, 1, padding="same")(x), after_pool, 1),
    ]
    return layers.Concatenate()(branches)


# %%
maps = keras.Input((28, 28, 192))
figures.diagram(
    keras.Model(maps, inception(maps, 64, 96, 128, 16, 32, 32)),
    "GoogLeNet's first Inception block: three branches have a bottleneck, the fourth is 1 × 1 itself.",
)


# %% tags=["definition"]
INCEPTIONS = {  # the channels of the nine blocks: Szegedy et al., table 1
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(classes=1000):
    """Return GoogLeNet without its auxiliary classifiers: (224, 224, 3) -> probabilities."""
    images = keras.Input((224, 224, 3))
    x = relu_conv(images, 64, 7, stride=2)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = relu_conv(relu_conv(x, 64, 1), 192, 3)
    for name, channels in INCEPTIONS.items():
        if name in ("3a", "4a", "5a"):
            x = layers.MaxPooling2D(3, 2, padding="same")(x)
        x = inception(x, *channels)
    x = layers.Dropout(0.4)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(classes, activation="softmax")(x))


# %% tags=["nbval-check-output"]
sizes["GoogLeNet"] = table = cost(googlenet())
blocks = table[table.index.str.startswith("concatenate")]
print("channels after each block:", *blocks["output"].str.split().str[-1])
print(f"{table['parameters'].sum():,} parameters; AlexNet has",
      f"{sizes['AlexNet']['parameters'].sum() / table['parameters'].sum():.1f} times as many")  # fmt: skip

# %% [markdown]
# Most of AlexNet's parameters were in the dense layers. GoogLeNet has no such wide layers: *global average
# pooling* takes the mean of each map of the last block, and a single dense layer with softmax follows. The two
# *auxiliary classifiers*, which helped the gradient to reach the early layers, are dropped after training; we
# leave them out, and the two local response normalisations with them. Later Inceptions brought batch normalisation
# (v2, 2015), kernels of 1 × n and n × 1 (v3), and in *Inception-ResNet* the shortcuts of the next section.
#
# > **Note on the book.** It says twelve times fewer parameters than AlexNet, as the paper does. Counting gives the
# > number above. And it gives the shortcuts to Inception-v4; in the paper of 2016 that is the network *without*
# > them, beside Inception-ResNet.
#
# ## 6. ResNet (2015): shortcuts
#
# If deeper is better, why not a hundred layers? He et al. tried: a plain network of 56 layers made *more*
# errors on the **training** images than one of 20. That is not overfitting. And it is strange, because the deeper
# network could do what the other does: 20 layers like it, 36 that pass their input on. Optimisation does not
# find this. They called it *degradation*.
#
# Their cure: let two layers compute only the *change*. A **residual block** returns
#
# $$y = \operatorname{ReLU}\big(x + F(x)\big),$$
#
# where $x$ takes a *shortcut* around the two convolutions $F$. To pass $x$ on, $F$ only has to be zero ($x$ comes from a ReLU, so
# another one changes nothing). Where
# a block halves the map and doubles the channels, $x$ needs another shape as well: a 1 × 1 convolution with
# stride 2, or every second pixel and zeros in the new channels.
#
# Batch normalisation follows every convolution. We use the fused operation of lab 5, but here with all weights
# of Keras's layer (lab 5 left out γ), and with the settings that are usual for ResNets: momentum 0.9, and an ε of
# $10^{-5}$. (The operation stores the variance divided by $n - 1$ instead of $n$; hence the tolerance in the check.)


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalisation in one operation: (batch, height, width, channels) -> same."""

    def __init__(self, momentum=0.9, epsilon=1e-5, **options):
        # The operation takes its own numbers in float32, and its inputs as they are.
        options["autocast"] = False
        super().__init__(momentum=momentum, epsilon=epsilon, **options)

    def call(self, inputs, training=False, mask=None):
        learning = bool(training) and self.trainable
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, mean=self.moving_mean,
            variance=self.moving_variance, epsilon=self.epsilon,
            exponential_avg_factor=1 - self.momentum, is_training=learning,
        )  # fmt: skip
        if learning:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return outputs


# %% tags=["nbval-check-output"]
inputs = 2 + 3 * tf.random.stateless_normal((16, 8, 8, 5), seed=(8, 1))
ours, theirs = FusedBatchNormalization(), layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
for training in (True, False):  # the second time with the running means of the first
    difference = np.abs(ours(inputs, training=training) - theirs(inputs, training=training)).max()
    print(f"training={training}: equal to 0.01: {difference < 0.01}")


# %% tags=["definition"]
def normalised(x, layer, activation="relu"):
    """Apply a convolution, batch normalisation and an activation (none for `None`)."""
    x = FusedBatchNormalization()(layer(x))
    return layers.Activation(activation)(x) if activation else x


def normalised_conv(x, filters, size, stride=1, activation="relu"):
    """Convolve without bias (normalisation would remove it), normalise, activate."""
    layer = layers.Conv2D(
        filters, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal"
    )
    return normalised(x, layer, activation)


def projected(x, filters, stride):
    """Shortcut with a 1 × 1 convolution where the shape changes."""
    same = stride == 1 and x.shape[-1] == filters
    return x if same else normalised_conv(x, filters, 1, stride, activation=None)


def zero_padded(x, filters, stride):
    """Shortcut without parameters: every `stride`-th pixel, and zeros in the new channels."""
    if stride > 1:
        x = x[:, ::stride, ::stride]
    new = filters - x.shape[-1]
    return keras.ops.pad(x, [(0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)]) if new else x


def residual_block(x, filters, stride=1, shortcut=projected):
    """Two 3 × 3 convolutions beside a shortcut; `shortcut=None` leaves it out (a plain block)."""
    change = normalised_conv(x, filters, 3, stride)
    change = normalised_conv(change, filters, 3, activation=None)
    if shortcut:
        change = layers.Add()([shortcut(x, filters, stride), change])
    return layers.Activation("relu")(change)


# %%
maps = keras.Input((56, 56, 64))
figures.diagram(
    keras.Model(maps, residual_block(maps, 128, stride=2)),
    "A residual block that halves the maps: the shortcut (one branch) has a 1 × 1 convolution.",
)

# %% [markdown]
# > **Note on the book.** The caption of its figure says that in the block marked "1/2" the first convolution
# > has half as many kernels as the second. Both have the new, doubled number; the mark means stride 2 in
# > the first. And the last pooling is global, over 7 × 7, not 5 × 5.


# %% tags=["definition"]
def resnet34(classes=1000):
    """Return ResNet-34: (224, 224, 3) -> probabilities (He et al., 2016)."""
    images = keras.Input((224, 224, 3))
    x = normalised_conv(images, 64, 7, stride=2)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, (filters, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            x = residual_block(x, filters, stride=2 if stage and not block else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes, activation="softmax")(x))


# %% tags=["nbval-check-output"]
sizes["ResNet-34"] = table = cost(resnet34())
whole = table["parameters"].sum()
print(f"{whole:,} parameters for 1,000 classes, {whole - 513 * 990:,} for 10")
shortcuts = table["multiply-adds"] == 28 * 28 * 64 * 128  # 1 × 1; the other two cost the same
print((table["multiply-adds"] > 0).sum() - shortcuts.sum(), "layers with kernels,",
      shortcuts.sum(), "more on shortcuts")  # fmt: skip
print(f"{table['multiply-adds'].sum() / 1e9:.2f} billion multiply-adds")

# %% [markdown]
# ResNets with 50 layers and more use blocks of *three* convolutions, 1 × 1, 3 × 3, 1 × 1, another
# bottleneck: exercise 3. *ResNeXt* (2017) makes the 3 × 3 a convolution in 32 groups, its *cardinality*
# (exercise 1 counts such); *SKNet* (2019) lets each image weigh kernels of two sizes.
#
# ## 7. Cheaper convolutions, and channels that are weighed
#
# A convolution looks at neighbours and mixes channels in one step. A **depthwise-separable** one does it in
# two: one kernel for each channel alone (*depthwise*), then 1 × 1 over all channels (*pointwise*). With kernels
# of $k \times k$ and $C_\text{out}$ channels its multiply-adds are the share
# $\frac{1}{C_\text{out}} + \frac{1}{k^2}$ of the usual. MobileNet (2017), for telephones, is a stack of
# these; Xception has 34 of them.


# %% tags=["definition"]
def separable_block(x, filters, stride=1):
    """Depthwise 3 × 3, then pointwise 1 × 1, each with normalisation and ReLU."""
    x = normalised(x, layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False))
    return normalised_conv(x, filters, 1)


def squeeze_excite(x, ratio=16):
    """Weigh each channel by a number in (0, 1) that is computed from the means of all channels."""
    channels = x.shape[-1]
    weights = layers.GlobalAveragePooling2D(keepdims=True)(x)
    weights = layers.Dense(max(1, channels // ratio), activation="relu")(weights)
    weights = layers.Dense(channels, activation="sigmoid")(weights)
    return layers.Multiply()([x, weights])


def mobilenet(classes=1000):
    """Return MobileNet: (224, 224, 3) -> probabilities (Howard et al., 2017)."""
    images = keras.Input((224, 224, 3))
    x = normalised_conv(images, 32, 3, stride=2)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
    for filters, stride in (*blocks, (1024, 2), (1024, 1)):
        x = separable_block(x, filters, stride)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes, activation="softmax")(x))


# %% tags=["nbval-check-output"]
maps = keras.Input((14, 14, 256))
usual = layers.Conv2D(256, 3, padding="same", use_bias=False)
separable = layers.SeparableConv2D(256, 3, padding="same", use_bias=False)
a, b = (cost(keras.Model(maps, layer(maps))).iloc[-1] for layer in (usual, separable))
print(f"3 × 3, 256 to 256 channels: {a['parameters']:,} or {b['parameters']:,} weights")
print(f"share of multiply-adds: {b['multiply-adds'] / a['multiply-adds']:.3f} =",
      f"1/256 + 1/9 = {1 / 256 + 1 / 9:.3f}")  # fmt: skip
sizes["MobileNet"] = table = cost(mobilenet())
print(f"MobileNet: {table['parameters'].sum():,} parameters,",
      f"{table['multiply-adds'].sum() / 1e6:.0f} million multiply-adds")  # fmt: skip
weighing = keras.Model(maps, squeeze_excite(maps))
print(f"squeeze and excitation, 256 → 16 → 256: {weighing.count_params():,} parameters")

# %% [markdown]
# **Squeeze and excitation** (SENet, which won the last contest in 2017) adds hardly any multiply-adds, and few parameters: the mean of each
# map (*squeeze*) goes through a small bottleneck of dense layers, and what comes out multiplies the channels
# (*excite*). So the network can listen to some channels more than to others, image by image. It fits behind any
# block. EfficientNet combines all of this: depthwise convolutions, *inverted* bottlenecks (a 1 × 1 widens first, a last 1 × 1
# narrows), shortcuts, squeeze and excitation.
#
# The networks so far, side by side:

# %% tags=["nbval-check-output"]
totals = pd.DataFrame({name: table[COSTS].sum() for name, table in sizes.items()}).T
paper = {"LeNet-5": "0.06 parameters", "AlexNet": "60 parameters", "VGG-16": "138 parameters",
         "GoogLeNet": "6.8 parameters, 1,502 multiply-adds", "ResNet-34": "3,600 multiply-adds",
         "MobileNet": "569 multiply-adds"}  # fmt: skip
table = (totals / 1e6).rename(columns={"bytes": "MB of outputs"}).round(2)
print(table.assign(**{"in the paper": pd.Series(paper)}).to_string())

# %% [markdown]
# (In millions, for one image; `MB of outputs` counts what each layer gives, which training keeps for the way back. A
# ReLU inside a convolution is not counted apart, normalisation and a ReLU behind it are, so do not compare VGG with
# MobileNet in this column. The papers leave out: of LeNet-5 the output layer, of AlexNet what two groups save, of ResNet-34 the 1 × 1
# convolutions on shortcuts, which explain 19 of the 64 million. GoogLeNet's are the sums of its table, some of whose rows
# do not fit its own shapes: its first convolution has 9,472 parameters and 118 million multiply-adds; the table says
# 2,700 and 34.)
#
# Look at two pairs. ResNet-34 is more than twice as deep as VGG-16, with a sixth of its parameters and a quarter of its
# multiply-adds. GoogLeNet has fewer parameters than AlexNet, but more multiply-adds.
# Which of the two numbers tells how long a network takes?
#
# ## 8. Cost, measured
#
# Five single layers on batches of 16. The three convolutions have the same multiply-adds, on more and
# smaller maps each time; the dense layer has the most parameters of all. **Predict first:** order the five by
# time.


# %% tags=["definition"]
def seconds_of(model, batch_size=16, repeats=7):
    """Return the seconds of a forward pass, the shortest of several."""
    images = tf.random.stateless_normal((batch_size, *model.input_shape[1:]), seed=(8, 0))
    forward = tf.function(model, autograph=False)
    forward(images)  # builds the graph
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        forward(images)
        tf.test.experimental.sync_devices()  # a GPU answers before it has finished
        times.append(time.perf_counter() - begin)
    return min(times)


# %%
candidates = {
    "3 × 3, 64 maps of 56 × 56": ((56, 56, 64), layers.Conv2D(64, 3, padding="same")),
    "3 × 3, 128 maps of 28 × 28": ((28, 28, 128), layers.Conv2D(128, 3, padding="same")),
    "3 × 3, 256 maps of 14 × 14": ((14, 14, 256), layers.Conv2D(256, 3, padding="same")),
    "depthwise, 64 maps of 56 × 56": ((56, 56, 64), layers.DepthwiseConv2D(3, padding="same")),
    "dense, 2048 to 2048": ((2048,), layers.Dense(2048)),
}
rows = {}
for name, (shape, layer) in candidates.items():
    model = keras.Sequential([keras.Input(shape), layer])
    rows[name] = [*cost(model)[COSTS].iloc[-1] / 1e6, 1000 * seconds_of(model)]
units = ["million parameters", "million multiply-adds", "MB of outputs", "ms for 16 images"]
timed = pd.DataFrame.from_dict(rows, orient="index", columns=units)
timed.round(4)

# %%
figure, panels = figures.axes(1, 2, width=4, height=3)
for panel, column in zip(panels, units):
    for (name, row), marker in zip(timed.iterrows(), "osDv^"):
        panel.plot(row[column], row[units[-1]], marker, markersize=8, label=name)
    panel.set(xscale="log", yscale="log", xlabel=column, ylabel=units[-1])
panels[0].legend(fontsize=7)
figures.show(figure, "Time of a forward pass against parameters (left) and multiply-adds (right).")

# %% [markdown]
# **What happened, and why** (on the machine of these outputs). Parameters are not time: the dense layer has a hundred times
# those of the first convolution, and takes a small part of its time, for each parameter is used once for an image, and
# those of a convolution at every place. The three convolutions, with
# sixteen times more parameters from the first to the third, take about the same time: here the multiply-adds
# decide. But they do not decide alone. The depthwise layer has a sixty-fourth of the multiply-adds of the
# convolution on the same maps, and takes far more than a sixty-fourth of its time: it does little with each number
# that it fetches from memory. Multiply-adds are a fair guess between layers of one kind; for the rest, measure.
#
# ## 9. Further · Which network, then?
#
# The contest on ImageNet counted a photo as wrong if the true class was not among the five likeliest (*top-5
# error*). Keras offers many networks with trained weights, and so we can put their accuracy beside their size.
# (*top-1* is the share of photos whose likeliest class is right; *depth* is the book's count of layers, which takes
# in those without weights. In *DenseNet* each layer sees the outputs of all earlier ones in its block; the blocks of *NASNet*
# were found by automatic search.) `quick` builds one of them to check the count, the other profiles all thirteen.

# %%
CONTEST = {  # year, network, layers -> top-5 error in percent: figure 8.14 of the book
    "2012 AlexNet\n8 layers": 16.4,
    "2013 winner\n8 layers": 11.7,
    "2014 VGG\n19 layers": 7.3,
    "2014 GoogLeNet\n22 layers": 6.7,
    "2015 ResNet\n152 layers": 3.57,
}
KERAS = pd.DataFrame(
    [("Xception", 0.790, 0.945, 22_910_480, 126), ("VGG16", 0.713, 0.901, 138_357_544, 23),
     ("VGG19", 0.713, 0.900, 143_667_240, 26), ("ResNet50", 0.749, 0.921, 25_636_712, 168),
     ("InceptionV3", 0.779, 0.937, 23_851_784, 159), ("InceptionResNetV2", 0.803, 0.953, 55_873_736, 572),
     ("MobileNet", 0.704, 0.895, 4_253_864, 88), ("MobileNetV2", 0.713, 0.901, 3_538_984, 88),
     ("DenseNet121", 0.750, 0.923, 8_062_504, 121), ("DenseNet169", 0.762, 0.932, 14_307_880, 169),
     ("DenseNet201", 0.773, 0.936, 20_242_984, 201), ("NASNetMobile", 0.744, 0.919, 5_326_716, None),
     ("NASNetLarge", 0.825, 0.960, 88_949_818, None)],
    columns=["network", "top-1", "top-5", "parameters", "depth"],
).set_index("network").astype({"depth": "Int64"})  # fmt: skip
counted = {}
for name in run.scale(quick=["MobileNetV2"], standard=KERAS.index, full=KERAS.index):
    counted[name] = getattr(keras.applications, name)(weights=None).count_params()
    assert counted[name] == KERAS["parameters"][name], name
    gc.collect()
run.record(million_parameters_mobilenet_v2=counted["MobileNetV2"] / 1e6)
KERAS.assign(**{"counted here": pd.Series(counted, dtype="Int64")})

# %%
figure, panels = figures.axes(1, 2, width=4.8, height=3.4)
panels[0].bar(list(CONTEST), list(CONTEST.values()), color=figures.COLOURS[0])
panels[0].tick_params(axis="x", labelsize=7, rotation=30)
panels[0].set(xlabel="year and network", ylabel="top-5 error (%)")
panels[1].plot(KERAS["parameters"] / 1e6, 100 * (1 - KERAS["top-5"]), "o")
for name, row in KERAS.iterrows():
    side, shift = ("right", -4) if row["parameters"] > 5e7 else ("left", 4)
    panels[1].annotate(name, (row["parameters"] / 1e6, 100 * (1 - row["top-5"])), fontsize=7, ha=side,
                       xytext=(shift, -8 if name in ("VGG16", "InceptionV3") else 2), textcoords="offset points")  # fmt: skip
panels[1].set(xscale="log", xlabel="parameters (millions)", ylabel="top-5 error (%)")
figures.show(
    figure, "Errors on ImageNet: the contest (book, figure 8.14), Keras's networks (table 8.1)."
)

# %% [markdown]
# The two panels do not measure the same. A contest entry is a team's best: the mean of several networks, each
# looking at many cut-outs of a photo. Keras's numbers are those of one network and one look. So VGG, second in 2014, stands
# at 7.3 % on the left and at 10 % on the right.
#
# > **Note on the book.** From its figure it concludes that the deepest network wins. Within its five entries it
# > does. In its own table Xception, 126 layers deep, beats ResNet50 (168), InceptionV3 (159) and DenseNet201 (201),
# > and MobileNetV2 has the accuracy of VGG-16 with a fortieth of the parameters. The *kind* of block changed, too.
#
# ## 10. Experiment 1 · Degradation
#
# ### 10.1 Prepare the data
#
# CIFAR-10 with the split, the pipeline and the gentle augmentation (flip and crop) of lab 4. `quick` reads a
# small part that ships with the course.


# %% tags=["definition"]
def load_parts(name):
    """Return training images (the first 90 %), validation (the last 10 %) and test images."""
    split = ["train[:90%]", "train[90%:]", "test"]
    return tfds.load(name, split=split, data_dir=data.tfds_dir(name))


# %%
train, *_ = load_parts(run.scale(quick="cifar10_sample", standard="cifar10", full="cifar10"))
train = train.take(run.scale(quick=800, standard=9000, full=45_000))
print(len(train), "training images")

# %% [markdown]
# ### 10.2 Build and train
#
# The networks of He et al. for CIFAR-10: a 3 × 3 convolution, then three stages of $n$ blocks with 16, 32 and 64
# channels, on maps of 32, 16 and 8 pixels; global average pooling and a dense layer: $6n + 2$ layers. The plain
# network and the residual one have the *same* convolutions. The shortcuts are the kind without parameters, so
# nothing but the sum is different.


# %% tags=["definition"]
SHORTCUTS = {"plain": None, "resnet": zero_padded}


def cifar_network(kind, depth, share=1.0):
    """Return a network with `depth` layers: (32, 32, 3) -> 10 logits; `share` scales widths.

    `kind` is "plain" or "resnet". Raises `ValueError` for a depth that is not 6 n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"the depth must be 8, 14, 20, …: 6 n + 2, not {depth}")
    images = keras.Input((32, 32, 3))
    x = layers.Rescaling(2.0, offset=-1.0)(images)
    x = normalised_conv(x, int(16 * share), 3)
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            x = residual_block(x, int(filters * share), stride, SHORTCUTS[kind])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(10, dtype="float32")(x), name=f"{kind}-{depth}")


# %% tags=["nbval-check-output"]
untrained = {(kind, depth): cifar_network(kind, depth) for depth in (20, 56) for kind in SHORTCUTS}
for model in untrained.values():
    table = cost(model)
    print(f"{model.name:10} {(table['multiply-adds'] > 0).sum()} layers with kernels,",
          f"{table['parameters'].sum():,} parameters,",
          f"{table['multiply-adds'].sum() / 1e6:.0f} million multiply-adds")  # fmt: skip

# %% [markdown]
# **Before any training** something can be seen. One step changes the kernel $W$ of a layer in proportion to its
# gradient; how much that is, compared with the kernel, is $\lVert \partial L / \partial W \rVert / \lVert W
# \rVert$. One learning rate serves all layers, so this ratio should be similar in all of them. **Predict first:**
# how does it change from the last layer back to the first, in the plain and in the residual network?


# %% tags=["definition"]
def relative_gradients(model, images, targets):
    """Return for each convolution, first to last, the norm of its gradient over that of its kernel."""
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, layers.Conv2D)]
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)(targets, logits)
    gradients = tape.gradient(loss, kernels)
    return np.array([float(tf.norm(g) / tf.norm(w)) for g, w in zip(gradients, kernels)])


# %%
images, targets = next(iter(image_batches(train.take(64))))
ratios = {key: relative_gradients(model, images, targets) for key, model in untrained.items()}
figure, (panel,) = figures.axes(width=6, height=3.2)
for (kind, depth), values in ratios.items():
    panel.plot(range(1, len(values) + 1), values, label=f"{kind}, {depth} layers")
panel.set(
    yscale="log", xlabel="convolution, counted from the image", ylabel="gradient / kernel (norms)"
)
panel.legend()
figures.show(figure, "Size of the gradient, compared with the kernel, before training.")

# %%
for kind in SHORTCUTS:
    growth = ratios[kind, 56][0] / ratios[kind, 56][-1]
    run.record(**{f"gradient_decades_{kind}_56": np.log10(growth)})
    print(f"{kind}-56: the first convolution's ratio is {growth:,.1f} times the last one's")

# %% [markdown]
# **What happened, and why.** The gradient does not vanish on its way back. In the plain network it *grows*, by
# about the same factor in each layer: normalisation takes away the mean that ReLU left, and stretches what remains;
# on the way back it stretches the gradient as much (in wide layers by $\sqrt{\pi / (\pi - 1)} \approx 1.2$: Yang et al.,
# 2019). Over 54 layers the factors multiply, and at the start no single rate suits the first layers and the last.
# A shortcut passes the gradient on, but for what the ReLU after the sum cuts off, and the convolutions beside it only add a
# part: the factor of the whole network is then below ten (it is printed above).
# This is the state *before* training, and the steps change it; the study shows what is left of the difference.
#
# Now training. `RECIPE` has what the paper used (stochastic gradient descent with momentum, batches of 128, a rate
# of 0.1), with one cycle (lab 4) in place of steps, and eight epochs in place of 164. (In the paper the decay of the
# weights, 0.0001, is part of the gradient, so momentum repeats it about $1 / (1 - 0.9) = 10$ times. Keras applies it
# apart, and 0.001 is as strong.) What follows is about *eight epochs*.


# %% tags=["definition"]
import contextlib

RECIPE = {"epochs": 8, "batch_size": 128, "peak": 0.1, "momentum": 0.9, "weight_decay": 0.001}


def train_deep(kind, depth, train, validation=None, share=1.0, **changes):
    """Build, compile and fit one of the networks; return it and its history.

    `changes` replace entries of `RECIPE`.
    """
    recipe = RECIPE | changes
    keras.utils.set_random_seed(run.seed)
    batches = image_batches(train, recipe["batch_size"], True, [flip, random_crop], run.seed)
    # In `quick` layers have as few as 8 channels, for which bfloat16 may take twice as long.
    with run.scale(quick=contextlib.nullcontext, standard=run.fast, full=run.fast)():
        model = cifar_network(kind, depth, share)
    rate = schedules.one_cycle(recipe["peak"], recipe["epochs"] * len(batches))
    model.compile(
        keras.optimizers.SGD(rate, recipe["momentum"], weight_decay=recipe["weight_decay"]),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"], jit_compile=run.jit_compile,
    )  # fmt: skip
    history = model.fit(
        batches, validation_data=validation and image_batches(validation, 500),
        epochs=recipe["epochs"], verbose=0, shuffle=False,
        callbacks=run.callbacks(f"{model.name}-seed-{run.seed}", data=batches),
    )  # fmt: skip
    return model, history


# %% [markdown]
# All four networks with three seeds take about two hours: that is a *study*, `labs/studies/08_degradation.py`, whose rows
# are part of the repository. Here and now we train one deep pair, on few images and for few steps: in `quick` 32
# narrow layers (and a quarter of batch and rate), otherwise 56. **Predict first:** after the same steps, which has the lower training loss?

# %%
live = {}
for kind in SHORTCUTS:
    _, history = train_deep(
        kind, run.scale(quick=32, standard=56, full=56), train,
        share=run.scale(quick=0.5, standard=1.0, full=1.0),
        epochs=run.scale(quick=2, standard=4, full=8),
        batch_size=run.scale(quick=32, standard=128, full=128),
        peak=run.scale(quick=0.025, standard=0.1, full=0.1),
    )  # fmt: skip
    live[kind] = history.history
    print(f"{kind}: {history.seconds:.0f} s")
    run.record(**{f"live_training_loss_{kind}": live[kind]["loss"][-1]})
run.record(live_advantage_resnet=live["plain"]["loss"][-1] - live["resnet"]["loss"][-1])

# %%
figures.curves(
    live, ["loss", "accuracy"],
    labels={"loss": "loss while training", "accuracy": "accuracy while training"},
    caption="The same depth with and without shortcuts, trained here: loss and accuracy, epoch by epoch.",
)  # fmt: skip

# %% [markdown]
# After the few steps of `quick` both are near $\ln 10 \approx 2.30$, the loss of guessing, and their difference says
# little: there, look at the gradients above and at the study below. With those of `standard` the network with shortcuts
# is clearly ahead. That it begins with a *larger* loss than guessing comes from its start: each of the sums
# adds variance, so that its first answers are very sure, and wrong. It soon unlearns that. ($\gamma = 0$ in the last
# normalisation of each block, so that a block begins as its shortcut, would avoid it.)
#
# ### 10.3 Show the results of all twelve trainings
#
# The rows of the study: on all 45,000 training images, eight epochs each. The *training error* is measured after
# training, on the images as they are.

# %%
rows = results.study("08_degradation")
assert len(rows) == 12, "rows are missing: python -m tools.study 08_degradation"
table = pd.DataFrame([row["settings"] | row["metrics"] for row in rows])
groups = {f"{kind}_{depth}": part for (depth, kind), part in table.groupby(["depth", "kind"])}
for name, part in groups.items():
    run.record(
        **{f"accuracy_{name}": part["accuracy"], f"training_error_{name}": part["training_error"]}
    )
summary = table.groupby(["depth", "kind"])[["training_error", "accuracy", "minutes"]]
summary.agg(["mean", "min", "max"]).round(3)

# %%
figure, panels = figures.axes(1, 2, width=4.6, height=3.4)
titles = {"error": "error while training", "val_error": "validation error"}
for panel, (metric, title) in zip(panels, titles.items()):
    for (name, part), style in zip(groups.items(), ("-", "--", "-.", ":")):
        curves = 100 * np.array(part[metric].tolist())
        epochs = np.arange(1, curves.shape[1] + 1)
        line = panel.plot(
            epochs, curves.mean(axis=0), linestyle=style, label=name.replace("_", "-")
        )
        panel.fill_between(epochs, *np.quantile(curves, (0, 1), axis=0), alpha=0.2,
                           color=line[0].get_color())  # fmt: skip
    panel.set(xlabel="epoch", ylabel=f"{title} (%)")
panels[0].legend()
figures.show(
    figure, "Errors after each epoch: mean of three seeds, and the band between the extremes."
)

# %% [markdown]
# The same seed means the same order of images, and for a plain and a residual network of one depth the same start. So
# differences are taken seed by seed.

# %%
from labkit.compare import paired

figures.source(paired)

# %%
accuracies = {name: part.sort_values("seed")["accuracy"].tolist() for name, part in groups.items()}
differences = {
    "plain-56 minus plain-20": ("plain_20", "plain_56"),
    "resnet-56 minus resnet-20": ("resnet_20", "resnet_56"),
    "resnet-56 minus plain-56": ("plain_56", "resnet_56"),
}
pd.concat(
    {title: paired({name: accuracies[name] for name in pair}, pair[0], 0.0, higher_is_better=True)
     for title, pair in differences.items()}
).droplevel(1).round(3)  # fmt: skip

# %%
gains = {title: np.subtract(accuracies[b], accuracies[a]) for title, (a, b) in differences.items()}
run.record(
    depth_gain_plain=gains["plain-56 minus plain-20"],
    depth_gain_resnet=gains["resnet-56 minus resnet-20"],
    shortcut_gain_56=gains["resnet-56 minus plain-56"],
)

# %% [markdown]
# **What happened, and why.** Look at the *training* error first. Of the images that it was trained on, the plain network
# of 56 layers gets about half wrong, three times as many as the one of 20. That is degradation and not
# overfitting, for a network that overfits has a small training error. With shortcuts the order turns: 56 layers have
# the smaller training error, and on each of the three seeds the better accuracy; by so little, though, that three seeds
# do not prove it. And the pair of 56 layers, which differs in nothing but the sums, is far apart. (The shortcuts help 20
# layers, too, but much less.)
#
# The curves say how: the deep plain network does learn, from the first epoch to the last, but far more slowly than the
# others. What eight epochs cannot show is where the networks would end. In the paper, after 164 epochs, the plain
# network of 56 layers is still behind the one of 20, and the residual one of 56 makes 6.97 % errors on the test images,
# the residual one of 20 makes 8.75 %.
#
# ## 11. Experiment 2 · Ask a trained network
#
# ### 11.1 Prepare the photos
#
# The weights that come with the course are those of EfficientNet-Lite0 (a small one, without
# squeeze and excitation), trained on ImageNet. The photos are the
# two of scikit-learn. To ask about a photo of your own, put its path into the variable.

# %%
import PIL.Image, PIL.ImageOps
from IPython.display import display
from sklearn.datasets import load_sample_images

own_photo = None  # such as "elephant.jpg", in the folder of this notebook
photos = dict(zip(["china", "flower"], load_sample_images().images))
if own_photo:
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(own_photo))
    photos[Path(own_photo).stem] = np.asarray(upright.convert("RGB"))
figures.images(
    [centre_square(photo, 224) for photo in photos.values()], list(photos),
    "The photos as the network sees them: the middle square, 224 × 224 pixels.", columns=len(photos), size=2.6,
)  # fmt: skip

# %% [markdown]
# ### 11.2 Predict
#
# Keras has the networks of the table above as functions, such as `keras.applications.InceptionV3`, and all of them
# take the same arguments:
#
# | argument | what it says |
# |---|---|
# | `include_top` | with the classifier (the default), or only up to the last maps |
# | `weights` | `"imagenet"` (the default), `None` for random numbers, or a file |
# | `input_shape`, `input_tensor` | size of the photos, or a tensor to build on |
# | `pooling` | without classifier: `"avg"` or `"max"` makes one number of each map |
# | `classes` | of the classifier; other than 1,000 only without ImageNet's weights |
#
# With each come `preprocess_input`, which scales photos as the network wants them, and `decode_predictions`, which
# names the classes. **Predict first:** the last maps of Inception-v3 have 2,048 channels, twice as many as GoogLeNet's. How
# many numbers does it say about a photo without its classifier, with `pooling="avg"`?

# %% tags=["nbval-check-output"]
body = keras.applications.InceptionV3(
    include_top=False, weights=None, input_shape=(299, 299, 3), pooling="avg"
)
print(f"{body.count_params():,} parameters, output {body.output.shape}")

# %% [markdown]
# The networks want their inputs scaled in different ways: 0 to 1, −1 to 1, or minus the mean colour.
# `backbone`, which the labs use, puts the right scaling in front of each, so that all of them take photos in [0, 1],
# and refuses photos outside:

# %%
figures.source(backbones.backbone)

# %% [markdown]
# **Predict first:** what will the network, which knows 1,000 classes, call the two photos?


# %% tags=["definition"]
def answers(name, side, photos):
    """Return a network by name, the photos (n, side, side, 3), and its probabilities (n, 1000)."""
    network = backbones.backbone(name, (side, side, 3), top=True)
    batch = np.stack([centre_square(photo, side) for photo in photos])
    return network, batch, network.predict(batch, verbose=0)


def top_5(names, probabilities):
    """Return a table of the five likeliest classes of each photo, by its name."""
    tables = {name: backbones.best_classes(row) for name, row in zip(names, probabilities)}
    return pd.concat(tables, axis=1).round(3)


# %%
network, batch, probabilities = answers("efficientnet_lite0", 224, photos.values())
run.record(
    **{f"top_probability_{name}": float(row.max()) for name, row in zip(photos, probabilities)}
)
top_5(photos, probabilities)

# %% [markdown]
# And with a wrong range? A common mistake is to divide by 255 twice. The values are still between 0 and 1, so
# nothing complains:

# %%
top_5(photos, network.predict(batch / 255, verbose=0))

# %% [markdown]
# For the network these are two photos of the night. A wrong range raises no error; you only find it by looking at
# the answers to a photo that you know.

# %% [markdown]
# The same for Inception-v3, the network of the book, wherever its weights can be had: in the mirror of a class
# room, or from the internet (`quick` does not ask for them). If not, the message says which file is missing and where
# to put it.

# %%
for name in run.scale(quick=[], standard=["inception_v3"], full=["inception_v3"]):
    try:
        display(top_5(photos, answers(name, 299, photos.values())[-1]))
    except data.DataError as error:
        print(error)

# %% [markdown]
# The book asks Inception-v3 about a photo of an elephant and prints: African elephant 0.804, tusker 0.122, Indian
# elephant 0.004. Its photo is not ours to show; with your own, set `own_photo` and run the cells again. Expect the
# same classes, not the same digits: they change with the photo and with how it is cut out.
#
# > **Note on the book.** Its program lacks the import of matplotlib. It stretches photos to a square; we cut the square
# > out. Its second program takes the network from TensorFlow Hub, whose site has moved to Kaggle Models, by an address
# > with a space too many (and chapter 9 calls the version used here `/4`; it is `/2`).
# > `hub.KerasLayer` belongs to Keras 2, and Keras 3 refuses it; what was there comes today from Keras Applications or
# > Keras Hub, or as a `keras.layers.TFSMLayer` from a downloaded SavedModel. The model of the Hub has 1,001 outputs:
# > class 0 is "background".
#
# ### 11.3 Where did it look?
#
# *Grad-CAM* (Selvaraju et al., 2017) asks which places of the last feature maps $A^k$ speak for class $c$. The weight
# of a map is the mean gradient of the class's logit $z_c$ over its places, and the picture is the weighted sum,
# without what speaks against the class:
#
# $$\alpha_k = \frac{1}{HW} \sum_{i,j} \frac{\partial z_c}{\partial A^k_{ij}}, \qquad
#   M = \operatorname{ReLU}\Big( \sum_k \alpha_k A^k \Big).$$


# %% tags=["definition"]
def grad_cam(network, photo, class_index):
    """Return where a class is found in a photo, (height, width) with values in [0, 1].

    `network` takes photos like this one, (height, width, 3), and ends in logits or in a layer
    `Softmax` behind them; `ValueError` if its last layer has an activation of its own.
    """
    last = network.layers[-1]
    if getattr(last, "activation", keras.activations.linear) != keras.activations.linear:
        raise ValueError(f"{last.name} gives no logits: build it with `classifier_activation=None`")
    logits = last.input if isinstance(last, layers.Softmax) else network.output
    maps = [layer.output for layer in network.layers if len(layer.output.shape) == 4][-1]
    inside = keras.Model(network.inputs, [maps, logits])
    images = tf.constant(photo[None])
    with tf.GradientTape() as tape:
        tape.watch(images)
        maps, logits = inside(images)
        logit = logits[0, class_index]
    weights = tf.reduce_mean(tape.gradient(logit, maps), axis=(1, 2))
    found = tf.nn.relu(tf.tensordot(maps[0], weights[0], 1))
    found = found / (tf.reduce_max(found) + 1e-12)
    return tf.image.resize(found[..., None], photo.shape[:2])[..., 0].numpy()


# %%
pictures, titles = [], []
names = backbones.classes()
for photo, p in zip(batch, probabilities):
    pictures.append(photo)
    titles.append("photo")
    for class_index in np.argsort(p)[::-1][:2]:
        lit = 0.15 + 0.85 * grad_cam(network, photo, class_index)[..., None]
        pictures.append(photo * lit)
        titles.append(f"{names[class_index]} ({p[class_index]:.2f})")
figures.images(
    pictures, titles, "Where the network found its two likeliest classes: bright, the rest is darkened.",
    columns=3, size=2.4,
)  # fmt: skip

# %% [markdown]
# **What happened, and why.** The maps are only 7 × 7, so the picture is blurred. In a network that ends in global
# average pooling and one dense layer, as this one does, the weights $\alpha_k$ are simply the dense layer's weights of
# the class, divided by $HW$. So Grad-CAM says which places *raised* the logit, no more; and each picture is lit relative to
# its own brightest place, so do not compare two of them. The flower is a dahlia, and
# that is none of the 1,000 classes: the network names what it knows, is not sure, and finds each of its wrong names
# in the right place.
#
# ## 12. Results
#
# `accuracy` is the share of test images classified correctly, `training_error` the share of training images
# that were not, after eight epochs, from the study. `depth_gain` is accuracy with 56 layers minus with 20,
# `shortcut_gain` with shortcuts minus without. `gradient_decades` is how many powers of ten the ratio of section 10.2 grows from the last
# convolution back to the first, `live` what was
# trained here, `top_probability` the network's certainty about a photo. Of these rows the book has numbers for the parameters only; its
# figures of plain and residual networks are those of the papers.

# %%
run.table()

# %% [markdown]
# ## 13. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · Parameters of a convolution in groups
#
# In a convolution with $g$ groups the maps below are dealt into $g$ equal parts, and so are the kernels; each
# kernel sees one part only.


# %% nbgrader={"grade": false, "grade_id": "conv_parameters", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def conv_parameters(size, channels, filters, groups=1, bias=True):
    """Return the number of parameters of `filters` kernels, `size` × `size`, on `channels` maps."""
    ### BEGIN SOLUTION
    return (size * size * channels // groups + bias) * filters
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "conv_parameters_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(conv_parameters) as check:
    hint = "for each kernel: size · size weights for each map below, and one bias"
    check(conv_parameters(11, 3, 96), 34_944, hint)
    hint = "a kernel sees channels / groups maps; the kernels, and a bias for each, stay as many"
    check(conv_parameters(5, 96, 256, groups=2), 307_456, hint)
    check(conv_parameters(1, 128, 16, bias=False), 2_048, "without bias, nothing is added")
    hint = "depthwise: as many groups as maps, so each kernel sees one map"
    check(conv_parameters(3, 64, 64, groups=64, bias=False), 576, hint)

# %% [markdown]
# ### Exercise 2 · What an output sees
#
# The *receptive field*: how many pixels of the image, along one side, can change one output? `stack` has a
# pair (kernel size, stride) for each layer, from the image on; a pooling counts like a convolution.


# %% nbgrader={"grade": false, "grade_id": "receptive_field", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def receptive_field(stack):
    """Return the side of the square of pixels that one output of the last layer sees."""
    ### BEGIN SOLUTION
    field, step = 1, 1  # `step`: pixels of the image from one place of a map to the next
    for size, stride in stack:
        field += (size - 1) * step
        step *= stride
    return field
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "receptive_field_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(receptive_field) as check:
    check(receptive_field([(5, 1)]), 5, "one layer sees as many pixels as its kernel is wide")
    check(receptive_field([(3, 1)] * 3), 7, "each layer adds its kernel size minus 1")
    hint = "the stride of a layer widens what the layers *after* it see, not what it sees itself"
    check(receptive_field([(3, 1), (3, 2)]), 5, hint)
    hint = "after a stride of 2, neighbours in the map are two pixels of the image apart"
    check(receptive_field([(3, 2), (3, 1)]), 7, hint)
    check(receptive_field([(7, 2), (3, 2), (3, 1), (3, 1)]), 27, "strides multiply: 2 and 2 make 4")
    check(receptive_field([(11, 4), (3, 2), (5, 1)]), 51, "strides multiply: 4 and 2 make 8")
    hint = "a kernel of 2 × 2, as of a pooling, adds 1; its stride counts like any other"
    check(receptive_field([(3, 1), (2, 2), (3, 1)]), 8, hint)

# %% [markdown]
# ### Exercise 3 · The block of ResNet-50
#
# A *bottleneck* residual block: 1 × 1 to `filters` channels, 3 × 3 with the stride, 1 × 1 to `4 · filters`. Each
# convolution has no bias, and batch normalisation after it; ReLU follows the first two. The input is added, then ReLU.
# Where the shapes differ, a 1 × 1 convolution with the stride, and batch normalisation, bring the input to the new shape.
# (`layers.BatchNormalization` will do.)


# %% nbgrader={"grade": false, "grade_id": "bottleneck", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def bottleneck(x, filters, stride=1):
    """(batch, height, width, channels) -> (batch, height / stride, width / stride, 4 · filters)."""

    ### BEGIN SOLUTION
    def convolved(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    change = layers.ReLU()(convolved(x, filters, 1))
    change = layers.ReLU()(convolved(change, filters, 3, stride))
    change = convolved(change, 4 * filters, 1)
    if x.shape != change.shape:
        x = convolved(x, 4 * filters, 1, stride)
    return layers.ReLU()(layers.Add()([x, change]))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "bottleneck_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
def kernels(model):
    return [weight for weight in model.weights if len(weight.shape) == 4]


def fill(model, values, beta=0):
    """Give each kernel one value for all its numbers, and each normalisation the shift `beta`."""
    for kernel, value in zip(kernels(model), values):
        kernel.assign(value + 0 * kernel)
    for weight in model.weights:
        if weight.name == "beta":
            weight.assign(beta + 0 * weight)


with run.exercise(bottleneck) as check:
    wide, narrow = keras.Input((8, 8, 256)), keras.Input((8, 8, 64))
    halved, kept = bottleneck(narrow, 32, stride=2), bottleneck(wide, 64)
    shape = None if halved is None else str(halved.shape[1:])
    check(shape, "(4, 4, 128)", "the stride divides the sides; the last 1 × 1 makes 4 · filters")
    block, halving = keras.Model(wide, kept), keras.Model(narrow, halved)
    hint = "three convolutions without bias, a batch normalisation after each, a bare shortcut"
    check(block.count_params(), 71_168, hint)
    hint = "where the shape changes, the shortcut is a 1 × 1 convolution with batch normalisation"
    check(halving.count_params(), 24_832, hint)
    hint = "also without a stride: here 64 channels become 256"
    check(keras.Model(narrow, bottleneck(narrow, 64)).count_params(), 76_288, hint)
    inputs = np.linspace(-1, 1, 8 * 8 * 256, dtype="float32").reshape(1, 8, 8, 256)
    fill(block, [0, 0, 0])
    check(block(inputs), np.maximum(inputs, 0), "kernels of 0 leave it: add the input, then ReLU")
    for first in (-1, 1):
        fill(block, [first, -1, 1])
        hint = "ReLU follows the first and the second normalisation: nothing negative gets through"
        check(block(np.abs(inputs)), np.abs(inputs), hint)
    fill(block, [0, 1, 1], beta=-1)
    hint = "ReLU stands behind a normalisation, not before it; and none behind the third"
    check(block(3 * inputs), np.maximum(3 * inputs - 1, 0), hint)
    fill(halving, [-1 if k.shape[2:] == (64, 128) else 1e-3 for k in kernels(halving)])
    check(halving(np.ones((1, 8, 8, 64))), np.zeros((1, 4, 4, 128)), "no ReLU on the shortcut")
    inside = [part for layer in halving.layers for part in getattr(layer, "layers", [layer])]
    strides = {layer.kernel_size: layer.strides for layer in inside if hasattr(layer, "strides")}
    check(strides[3, 3], (2, 2), "the 3 × 3 has the stride; a 1 × 1 with a stride skips pixels")

# %% [markdown]
# **Try this, too:** put `squeeze_excite`, with `ratio=4`, behind the second convolution of `residual_block`, and train
# the pair of section 10.2 again. What does it cost, and what does it bring?
#
# ## 14. What to remember
#
# - Parameters, multiply-adds and activations follow from the shapes; none of them is the time. Multiply-adds come
#   closest, between layers of one kind.
# - Stacked small kernels see as much as a large one, with fewer weights and more nonlinearity.
# - A 1 × 1 convolution mixes channels; as a bottleneck it makes the next layer cheap.
# - Global average pooling replaced the dense layers that had most of the parameters.
# - Degradation shows in the *training* error. A shortcut lets a block learn a change, and lets the gradient pass.
# - Depthwise-separable convolutions save multiply-adds; squeeze and excitation weighs channels.
# - A trained network is only as good as the scaling of its inputs: use its own.
#
# **Read on.** LeCun et al., *Gradient-Based Learning Applied to Document Recognition*, 1998 · Krizhevsky, Sutskever and
# Hinton, *ImageNet Classification with Deep Convolutional Neural Networks*, 2012 · Simonyan and Zisserman, *Very Deep
# Convolutional Networks*, 2015 (arXiv:1409.1556) · Szegedy et al., *Going Deeper with Convolutions*, 2015
# (arXiv:1409.4842) · He et al., *Deep Residual Learning for Image Recognition*, 2016 (arXiv:1512.03385) · Yang et al.,
# *A Mean Field Theory of Batch Normalization*, 2019 (arXiv:1902.08129) · Howard et al., *MobileNets*, 2017
# (arXiv:1704.04861) · Hu, Shen and Sun, *Squeeze-and-Excitation Networks*, 2018 (arXiv:1709.01507) · Selvaraju et al.,
# *Grad-CAM*, 2017 (arXiv:1610.02391).

# %%
run.check()
