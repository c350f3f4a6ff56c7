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
# # Lab 1 · TensorFlow basics
#
# After this lab you can
#
# - compute with tensors, and say what a shape, a type and a graph are;
# - let TensorFlow find a gradient, and check it by hand;
# - build networks with one or several inputs and outputs, and predict their parameter counts;
# - feed a network with `tf.data`: the ten operations, and the order they belong in;
# - train your first network: it reads handwritten digits.
#
# **Chapter 1** of the book. **Needs** school mathematics, a little Python and the set-up of the README; no
# GPU, and no internet connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import data, figures, schedules
from preprocessing import parse_fn
import keras, numpy as np, tensorflow as tf, tensorflow_datasets as tfds
from keras import layers

run = labkit.start("01_tensorflow_basics")

# %% [markdown]
# ## How to work with a lab
#
# This page is a *notebook*: a row of cells, some with text, some with code. Click on the code cell above
# and press **Shift+Enter**. The cell runs, its output appears below it, and the next cell is selected.
#
# | you want to | do this |
# |---|---|
# | run a cell and go to the next | **Shift+Enter** |
# | run everything, from a clean start | menu *Run → Restart Kernel and Run All Cells* |
# | stop a cell that takes too long | the button ■ |
# | try something | change a code cell and run it again; nothing can break |
#
# `[*]` beside a cell means that it is running; a number tells the order in which cells ran. All cells
# share their variables, so run them from top to bottom. "Name … is not defined" says that an earlier cell
# has not run yet. When things look strange, restart and run all: it helps surprisingly often.
#
# **Predict first.** Where you meet these words, stop, write your guess down, and only then run the cell.
# A wrong guess is worth more than a cell that was only read. Try it here:

# %% tags=["nbval-check-output"]
print(7 // 2, 7 / 2, 7 % 2)  # before you run it: which three numbers?

# %% [markdown]
# The line below the set-up cell says which lab this is, its *profile*, the device (processor or graphics
# card), the kind of numbers that this machine computes fastest with, and how long the lab takes here. The
# profile `quick` works on a small part of the data; for all of it, write `%env LABS_PROFILE=standard` into a new
# cell above the first one, then restart and run all.
#
# At the end wait exercises. Each has a check that tells you what is not yet right; solutions are in the folder
# `labs/solutions` of the course.
#
# ## 1. What TensorFlow is for
#
# *Artificial intelligence* is every attempt to let machines solve problems that seem to need thinking.
# In *machine learning* nobody writes the rules down: the machine finds them in examples. *Deep learning*
# does this with networks of many layers.

# %%
from matplotlib.patches import Ellipse

figure, (panel,) = figures.axes(width=6.5, height=2.6)
rings = [("artificial intelligence", "search, logic, expert systems", 10, 4.2),
         ("machine learning", "trees, nearest neighbours, boosting", 7.4, 3.0),
         ("deep learning", "networks of many layers", 4.8, 1.7)]  # fmt: skip
for grey, (name, examples, width, height) in zip((1.0, 0.92, 0.82), rings):
    top = height - 2.1
    panel.add_patch(Ellipse((0, top - height / 2), width, height, fc=str(grey), ec="black"))
    panel.text(0, top - 0.42, name, ha="center", weight="bold")
    panel.text(0, top - 0.78, examples, ha="center", fontsize=9)
panel.set(xlim=(-5.1, 5.1), ylim=(-2.2, 2.2))
panel.axis("off")
figures.show(figure, "Deep learning is a part of machine learning, which is a part of AI.")

# %% [markdown]
# A network is a function with many adjustable numbers, its *parameters*. Training means: show it
# examples, compare its answers with the right ones, and change every parameter a little, so that the
# answers come closer. For this a computer must do three things, and TensorFlow does them:
#
# 1. compute with large arrays of numbers, on processor or graphics card (sections 2 and 3);
# 2. find out in which direction to change each parameter (section 4);
# 3. deliver the examples in time (section 6).
#
# On top of it, *Keras* builds networks out of layers (section 5). A trained network is saved and used
# elsewhere:

# %%
figures.graph(
    {"data": "tf.data\nreads and prepares", "keras": "Keras\nlayers, training",
     "weights": "trained weights\nof others (chapter 9)", "devices": "devices\nCPU, GPU, TPU, several",
     "saved": "saved model\none file or folder", "server": "server\nTensorFlow Serving",
     "phone": "phone\nLiteRT (was TF Lite)", "browser": "browser\nTensorFlow.js"},
    [("data", "keras"), ("weights", "keras"), ("devices", "keras"), ("keras", "saved"),
     ("saved", "server"), ("saved", "phone"), ("saved", "browser")],
    "Above: what a training uses. Below: where the trained network can work.",
)  # fmt: skip

# %% [markdown]
# > **Note on the book.** Of the ten toolkits that it lists, most are no longer developed (Theano, CNTK,
# > Caffe, Chainer, MXNet, DIGITS). In wide use today are TensorFlow, PyTorch and JAX; Keras 3 runs on each of
# > the three, chosen by `KERAS_BACKEND` before the import (the book's back-ends are TensorFlow, CNTK and Theano, chosen by a
# > function). Keras appeared in 2015, not 2014. And reinforcement learning, deep learning
# > and support vector machines do not divide machine learning into parts: the first is a kind of task, the others are
# > methods. Tasks are divided into supervised, unsupervised and reinforcement learning.
#
# ## 2. Tensors
#
# A *tensor* is an array of numbers of one type (`dtype`). Its *shape* tells its size along each axis; a
# single number has no axis. The three columns below are what you will look at most often when something does
# not work.

# %% tags=["nbval-check-output"]
scalar = tf.constant(5)
vector = tf.constant([1.0, 2.0, 6.0])
matrix = tf.constant([[1, 8], [2, 5], [4, 4]], dtype=tf.float64)
cube = tf.reshape(tf.range(24), (3, 2, 4))
for tensor in (scalar, vector, matrix, cube):
    print(tensor.ndim, "axes, shape", str(tensor.shape).ljust(9), tensor.dtype.name)

# %%
from matplotlib.patches import Rectangle

figure, panels = figures.axes(1, 4, width=2.1, height=2.1)
for panel, tensor in zip(panels, (scalar, vector, matrix, cube)):
    array = tensor.numpy()
    sheets = np.atleast_2d(array)[None] if array.ndim < 3 else array
    for depth in reversed(range(len(sheets))):  # the front sheet is drawn last
        for (row, column), value in np.ndenumerate(sheets[depth]):
            x, y = column + 0.5 * depth, 1.15 * depth - row
            panel.add_patch(Rectangle((x, y), 1, 1, fc="white", ec="black", zorder=9 - depth))
            if depth == 0 or row == 0:  # the others are covered
                panel.text(x + 0.5, y + 0.5, f"{value:g}", ha="center", va="center", zorder=9)
    panel.set(title=f"shape {tensor.shape}", aspect="equal", xlim=(-0.2, 5.2), ylim=(-2.1, 3.5))
    panel.axis("off")
figures.show(
    figure, "A tensor without axes, and with one, two and three; the last is three sheets deep."
)

# %% [markdown]
# Everything a network sees becomes a tensor: a grey image has the shape (height, width, 1), a colour
# image (height, width, 3), a batch of 64 of them (64, height, width, 3), a text is a row of word numbers.
#
# **Eager execution.** TensorFlow 2 computes at once, like a pocket calculator:

# %% tags=["nbval-check-output"]
print("eager:", tf.executing_eagerly())
a, b = tf.constant(3), tf.constant(4)
print(a)
print(b)
print("a + b =", a + b)
print("a * b =", a * b)

# %% [markdown]
# **Predict first.** With the matrices below, `A + B` adds number by number. What are `A * B` and
# `A @ B`? (`A` is a tensor and `B` a NumPy array: TensorFlow takes both.)

# %% tags=["nbval-check-output"]
A = tf.constant([[1, 2], [3, 4]], dtype=tf.float32)
B = np.array([[1, 0], [2, 3]], dtype="float32")
for name, result in {"A + B": A + B, "A * B": A * B, "A @ B": A @ B}.items():
    print(f"{name} =", result.numpy().tolist())
print("axes:", (A @ B).ndim)

# %% [markdown]
# `*` multiplies number by number; `@` is the product of matrices, row times column: the upper left number
# is $1 \cdot 1 + 2 \cdot 2 = 5$. A layer of a network is such a product.
#
# > **Note on the book.** It prints the product of matrices under the name "a * b".
#
# Two things surprise beginners. First, types must agree; TensorFlow does not convert an integer tensor for
# you. Second, a tensor never changes; what can change is a *variable*, and a network's parameters are
# variables.

# %% tags=["nbval-check-output"]
try:
    tf.constant(1) + tf.constant(0.5)
except tf.errors.InvalidArgumentError as error:
    print("int32 + float32:", type(error).__name__)
print("converted first:", tf.cast(tf.constant(1), tf.float32) + tf.constant(0.5))

weight = tf.Variable([1.0, 2.0])
weight.assign_sub([0.5, 0.5])  # subtract and keep
print("variable after assign_sub:", weight.numpy())

# %% [markdown]
# **Tip: back to NumPy.** Matplotlib, OpenCV and pandas work with NumPy arrays. When one of them complains
# about a type, hand it `tensor.numpy()`. The way back is `tf.constant(array)`, or nothing at all:
# TensorFlow takes arrays as they are. One trap: NumPy makes float64, TensorFlow and Keras prefer float32.

# %% tags=["nbval-check-output"]
array = (A @ B).numpy()
print(type(array).__name__, array.dtype, "| from NumPy:", tf.constant(np.array([0.5])).dtype.name)

# %% [markdown]
# ## 3. Graphs: `tf.function`
#
# Line by line is pleasant to debug, but Python is slow, and a phone has none. So TensorFlow can write the
# operations of a function down, once, as a *data-flow graph*, and then run the graph without Python: the
# nodes are operations, along the arrows flow tensors. Here is
#
# $$Y = \frac{a + b}{a - b}, \qquad a = 4,\ b = 2.$$


# %% tags=["nbval-check-output"]
def fraction(a, b):
    return (a + b) / (a - b)


number = tf.TensorSpec((), tf.float32)
graph = tf.function(fraction).get_concrete_function(number, number).graph
for node in graph.get_operations()[:5]:
    print(node.type.ljust(11), node.name.ljust(7), "from", [t.op.name for t in node.inputs])
print("Y =", tf.function(fraction)(4.0, 2.0).numpy())

# %%
nodes = graph.get_operations()[:5]
values = {"a": "4", "b": "2", "add": "4 + 2 = 6", "sub": "4 − 2 = 2", "truediv": "6 / 2 = 3"}
figures.graph(
    {node.name: f"{node.name}\n{values[node.name]}" for node in nodes},
    [(tensor.op.name, node.name) for node in nodes for tensor in node.inputs],
    "The graph that TensorFlow wrote down, with the values of the example.",
)

# %% [markdown]
# > **Note on the book.** In TensorFlow 1 *everything* was such a graph, and a value appeared only when a
# > *session* ran it. Since TensorFlow 2 eager is the rule and the graph an offer.
#
# Writing the graph down is called *tracing*. The function's Python code runs then, and only then. So the `print` below speaks
# while it is traced, and shows a tensor without a value, as TensorFlow 1 did everywhere. **Predict first:** the
# loop makes six calls; at which of them will it speak?


# %% tags=["nbval-check-output"]
@tf.function
def double(x):
    print("   traced for", x)
    return 2 * x


calls = {"1": tf.constant(1), "2": tf.constant(2), "0.5": tf.constant(0.5),
         "[1, 2]": tf.constant([1, 2]), "[3, 4]": tf.constant([3, 4]), "1 again": tf.constant(1)}  # fmt: skip
for name, value in calls.items():
    print("call with", name)
    double(value)

# %% [markdown]
# It is traced anew for each new *type* and each new *shape*, not for new values. But a plain Python
# number counts as part of the code, so each new one costs a new tracing, which takes far longer than the
# computation itself. If a `tf.function` is slow, look here first, and give it tensors.


# %% tags=["nbval-check-output"]
@tf.function
def triple(x):
    return 3 * x


for kind, numbers in {"tensors": tf.constant([1, 2, 3]), "Python numbers": [1, 2, 3]}.items():
    before = triple.experimental_get_tracing_count()
    for value in numbers:
        triple(value)
    print("three", kind, "->", triple.experimental_get_tracing_count() - before, "new graphs")

# %% [markdown]
# What is gained? **Before you run the cell:** where will the graph gain more, with 200 operations on nine
# numbers, or with three products of large matrices?

# %%
import time


def seconds(function, x):
    """Return the shortest of ten times that `function(x)` takes, after a first call."""
    times = []
    for _ in range(11):
        begin = time.perf_counter()
        function(x)
        times.append(time.perf_counter() - begin)
    return min(times[1:])  # the first call of a tf.function traces


def many_small(x):
    for _ in range(100):
        x = tf.sin(x) + 1.0
    return x


def few_large(x):
    return x @ x @ x @ x


for function, size in ((many_small, 3), (few_large, 700)):
    x = tf.ones((size, size)) / size
    eager, graph = seconds(function, x), seconds(tf.function(function), x)
    print(f"{function.__name__}: eager {1000 * eager:5.1f} ms, graph {1000 * graph:5.1f} ms,"
          f" {eager / graph:.1f} times as fast")  # fmt: skip

# %% [markdown]
# The graph saves Python's share of the work. Where each operation is small, that is most of it; a product
# of large matrices takes its time either way. You will seldom write `tf.function` yourself: Keras'
# `fit` puts its training step into a graph for you (and `compile(run_eagerly=True)` takes it out, for
# debugging). But you will meet its error messages, and a `print` that speaks only once.
#
# ## 4. Gradients
#
# Take the smallest network there is: one weight, one bias, $\hat y = w x + b$. For one example its error is
# measured by the *loss* $L = (\hat y - y)^2$. Let $w = 2$, $b = 1$, $x = 3$, and the right answer $y = 5$.
# Then $\hat y = 7$, the error is $2$ and $L = 4$.
#
# How does $L$ change when $w$ changes? By the chain rule, link by link from the loss back to the weight:
#
# $$\frac{\partial L}{\partial w} = \underbrace{2(\hat y - y)}_{4} \cdot \underbrace{x}_{3} = 12, \qquad
#   \frac{\partial L}{\partial b} = \underbrace{2(\hat y - y)}_{4} \cdot 1 = 4.$$
#
# `tf.GradientTape` does the same: while it is open it notes every operation, and then it walks
# backwards through its notes. A third way needs no calculus: change $w$ a little, and look.

# %% tags=["nbval-check-output"]
w, b = tf.Variable(2.0), tf.Variable(1.0)
x, y = 3.0, 5.0


def loss_of(w, b):
    return (w * x + b - y) ** 2


with tf.GradientTape() as tape:
    loss = loss_of(w, b)
by_tape = [float(gradient) for gradient in tape.gradient(loss, [w, b])]
step = 0.5  # for a square the middle difference is exact, whatever the step
by_looking = [(loss_of(2 + step, 1) - loss_of(2 - step, 1)) / (2 * step),
              (loss_of(2, 1 + step) - loss_of(2, 1 - step)) / (2 * step)]  # fmt: skip
print(f"loss {float(loss)}, by the tape {by_tape}, by looking {by_looking}")

# %% [markdown]
# The tape knows the gradient at every link of the chain. Read the figure downwards for the values, and
# upwards for the gradients, as the tape does:

# %%
with tf.GradientTape() as tape:
    product = w * x
    prediction = product + b
    error = prediction - y
    loss = error**2
chain = {"w": w, "b": b, "product = w·3": product, "prediction = product + b": prediction,
         "error = prediction − 5": error, "loss = error²": loss}  # fmt: skip
gradients = tape.gradient(loss, list(chain.values()))
names = list(chain)
figures.graph(
    {name: f"{name}\nvalue {value.numpy():g}\ngradient {gradient.numpy():g}"
     for (name, value), gradient in zip(chain.items(), gradients)},
    [(names[0], names[2]), (names[2], names[3]), (names[1], names[3]),
     (names[3], names[4]), (names[4], names[5])],
    "Values flow down, gradients up: each box shows its value and the derivative of the loss by it.",
)  # fmt: skip

# %% [markdown]
# Positive gradients say: larger $w$ and $b$ make the loss larger. So make them smaller, by a small multiple
# of the gradient (the factor is the *learning rate*), and repeat. That is *gradient descent*, and with it one can train.
# Here are five points of the line $y = 3x - 1$. **Predict first:** will $w$ and $b$, starting at 0, find
# the 3 and the −1?

# %% tags=["nbval-check-output"]
x = tf.constant([-2.0, -1.0, 0.0, 1.0, 2.0])
y = 3 * x - 1
w, b = tf.Variable(0.0), tf.Variable(0.0)
losses, lines = [], []
for _ in range(60):
    lines.append((float(w), float(b)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((w * x + b - y) ** 2)  # the mean over the five points
    gradient_w, gradient_b = tape.gradient(loss, [w, b])
    w.assign_sub(0.1 * gradient_w)
    b.assign_sub(0.1 * gradient_b)
    losses.append(float(loss))
print(f"w = {float(w):.3f}, b = {float(b):.3f}")

# %%
figure, panels = figures.axes(1, 2, width=4.2)
panels[0].plot(x, y, "ko", label="the points")
for number, grey in ((0, 0.75), (1, 0.6), (3, 0.4), (30, 0.0)):
    slope, offset = lines[number]
    panels[0].plot(x, slope * x + offset, color=str(grey), label=f"after {number} steps")
panels[0].set(xlabel="x", ylabel="y")
panels[0].legend(fontsize=8)
panels[1].plot(losses)
panels[1].set(xlabel="step", ylabel="loss")
figures.show(figure, "Sixty steps of gradient descent: the line turns into place, the loss falls.")

# %% [markdown]
# The eight lines of this loop are the heart of every training in this course. What changes is the size: a network
# has thousands or millions of parameters in place of two.
#
# ### Further: what the tape does not see
#
# The tape watches variables; a constant must be shown to it (`tape.watch`). It can be read once, unless
# opened as `GradientTape(persistent=True)`. A tape within a tape gives the second derivative; here for
# $x^3$ at $x = 3$. And where a computation leaves TensorFlow, the chain is broken: the gradient is
# `None`. When you meet that, look for NumPy or `float(…)` in between.

# %% tags=["nbval-check-output"]
x = tf.constant(3.0)
with tf.GradientTape() as outer:
    outer.watch(x)
    with tf.GradientTape() as inner:
        inner.watch(x)
        cubed = x**3
    slope = inner.gradient(cubed, x)
curvature = outer.gradient(slope, x)
print(f"3x² = {float(slope)}, 6x = {float(curvature)}")

with tf.GradientTape() as tape:
    loss = tf.constant(1.0) * float(w) ** 2  # float() leaves TensorFlow
print("through float():", tape.gradient(loss, w))

# %% [markdown]
# ## 5. Networks with Keras
#
# ### 5.1 Layer after layer: `Sequential`
#
# A *dense* layer of $m$ neurons takes $n$ numbers and gives $m$: each output is a weighted sum of all
# inputs plus a bias, sent through an *activation* (lab 2 says why; *ReLU*, the usual one, replaces negative numbers by 0). It has $n \cdot m$ weights and
# $m$ biases. Our first network takes a digit of 28 × 28 pixels as 784 numbers in a row; two layers of
# 64 neurons follow, and ten outputs, one for each digit; *softmax* makes them positive, with the sum 1.
# **Predict first:** how many parameters has it?

# %% tags=["nbval-check-output"]
network = keras.Sequential(name="layer_by_layer")
network.add(keras.Input((784,)))
network.add(layers.Dense(64, activation="relu"))
network.add(layers.Dense(64, activation="relu"))
network.add(layers.Dense(10, activation="softmax"))

the_same = keras.Sequential(
    [
        keras.Input((784,)),
        layers.Dense(64, activation="relu"),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
for model in (network, the_same):
    print([layer.count_params() for layer in model.layers], "together", model.count_params())
print("by hand", 784 * 64 + 64, 64 * 64 + 64, 64 * 10 + 10)

# %%
figures.diagram(network, "The first network; the input is white, the output has a thick frame.")

# %% [markdown]
# Each box names the layer, its activation, the shape of its output for one example, and its parameters.
# (Keras' own `keras.utils.plot_model` draws a similar picture, if Graphviz is installed;
# `network.summary()` prints a table.)
#
# > **Note on the book.** It gives the size of the input to the first layer (`input_shape=`); Keras 3 wants
# > an `Input` of its own. And it says that the picture of 28 × 28 is flattened, but its code takes
# > 784 numbers: the flattening must happen before, as in our Experiment 1.
#
# ### 5.2 Any shape: the functional API
#
# `Sequential` is one chain. For several inputs or outputs, or a layer that is used twice, there is the
# *functional* way, in three steps: declare the inputs, connect layers by calling them like functions,
# make the model from inputs and outputs. First the same network as before:


# %% tags=["definition"]
def make_digits():
    """Return the network for digits: 784 pixels -> 10 probabilities."""
    inputs = keras.Input((784,), name="pixels")
    hidden = layers.Dense(64, activation="relu", name="hidden1")(inputs)
    hidden = layers.Dense(64, activation="relu", name="hidden2")(hidden)
    outputs = layers.Dense(10, activation="softmax", name="Output")(hidden)
    return keras.Model(inputs, outputs, name="digits")


# %% tags=["nbval-check-output"]
digits = make_digits()
print([layer.name for layer in digits.layers], digits.count_params())

# %% [markdown]
# > **Note on the book.** In its code for this model the input has one name in the line that makes it and
# > another in the line that uses it (the first name also hides Python's `input`), so it does not run.
#
# **Several inputs.** What is this second-hand thing worth? The network looks at a photo *and* knows the
# brand. `Conv2D` layers look at images; lab 4 explains them. All you need now: a window of $k$ × $k$ pixels that moves $s$
# pixels at a time (the *stride*, 1 unless it is given) makes $\lfloor (n - k) / s \rfloor + 1$ out of $n$ pixels, and
# `Conv2D(64, …)` gives 64 numbers at each place. With a 5 × 5 window and stride 2, an image of 128 pixels becomes one of
# $\lfloor (128 - 5) / 2 \rfloor + 1 = 62$, and the layer has $(5 \cdot 5 \cdot 3 + 1) \cdot 64$ parameters.


# %% tags=["definition"]
def make_price():
    """Return the network for prices: a photo and a brand number -> a price."""
    image = keras.Input((128, 128, 3), name="image")
    seen = layers.Conv2D(64, 5, strides=2, activation="relu")(image)
    seen = layers.Conv2D(32, 5, strides=2, activation="relu")(seen)
    seen = layers.Flatten()(seen)
    brand = keras.Input((1,), name="brand")
    known = layers.Dense(64, activation="relu")(brand)
    together = layers.Concatenate()([seen, known])
    together = layers.Dense(64, activation="relu")(together)
    price = layers.Dense(1, name="price")(together)
    return keras.Model([image, brand], price, name="price")


# %%
figures.diagram(make_price(), "Two inputs, each with layers of its own, joined by Concatenate.")

# %% [markdown]
# Most parameters sit where the long flattened vector meets the dense layer:
# $29 \cdot 29 \cdot 32 = 26{,}912$ numbers of the image and 64 of the brand make
# $26{,}976 \cdot 64 + 64$. Remember this when a network gets too large.
#
# **Several outputs.** Age and gender from one portrait. The outputs (*heads*) share the layers that look
# at the image. Each head has the activation that fits what it says: an age is a plain number (none), a yes
# or no is given as a probability (*sigmoid*, between 0 and 1).


# %% tags=["definition"]
def make_portrait():
    """Return the network for portraits: a photo -> an age and the probability of one gender."""
    image = keras.Input((128, 128, 3), name="image")
    seen = layers.Conv2D(64, 3, activation="relu")(image)
    seen = layers.Conv2D(64, 3, strides=2, activation="relu")(seen)
    seen = layers.Conv2D(64, 3, strides=2, activation="relu")(seen)
    seen = layers.Flatten()(seen)
    age = layers.Dense(1, name="Age_Output")(seen)
    gender = layers.Dense(1, activation="sigmoid", name="Gender_Output")(seen)
    return keras.Model(image, [age, gender], name="portrait")


# %%
figures.diagram(make_portrait(), "One input, two heads on the same features.")

# %% [markdown]
# **Several of both.** A photo of the clouds and ten measurements; chance of rain, temperature and humidity.
# Humidity is a share between 0 and 1, so it gets a sigmoid, too. **Predict first:** how many numbers does
# `Concatenate` hand to each of the three heads? Go through the windows and strides.


# %% tags=["definition"]
def make_weather():
    """Return the network for weather: a photo of clouds and ten numbers -> three forecasts."""
    cloud = keras.Input((256, 256, 3), name="cloud")
    seen = layers.Conv2D(64, 3, activation="relu")(cloud)
    seen = layers.Conv2D(64, 3, strides=2, activation="relu")(seen)
    seen = layers.Conv2D(64, 3, strides=2, activation="relu")(seen)
    seen = layers.Flatten()(seen)
    measured = keras.Input((10,), name="measurements")
    known = layers.Dense(64)(measured)
    together = layers.Concatenate()([seen, known])
    rain = layers.Dense(1, activation="sigmoid", name="rain")(together)
    temperature = layers.Dense(1, name="temperature")(together)
    humidity = layers.Dense(1, activation="sigmoid", name="humidity")(together)
    return keras.Model([cloud, measured], [rain, temperature, humidity], name="weather")


# %%
figures.diagram(make_weather(), "Two inputs and three heads.")

# %% tags=["nbval-check-output"]
for make in (make_digits, make_price, make_portrait, make_weather):
    model = make()
    inputs = " + ".join(str(tensor.shape[1:]) for tensor in model.inputs)
    print(
        f"{model.name:9} {inputs:22} -> {len(model.outputs)} out, {model.count_params():9,} parameters"
    )
print("weather by hand:", 62 * 62 * 64 + 64, "numbers for each head")

# %% [markdown]
# > **Note on the book.** Its heads for gender and for rain have no activation, so they could answer 1.7 or
# > −3 where a probability is asked for. A head needs the activation *and* the loss of its task.
#
# A network with several heads has a loss for each, and trains on their sum. An age that is wrong by
# ten years costs 10, the answer 0.5 for the gender only $\ln 2 \approx 0.69$: they are not on one scale; `loss_weights` in
# `compile` can balance them. (The photos here are noise: we
# only look at how the losses add up.)

# %% tags=["nbval-check-output"]
portrait = make_portrait()
portrait.compile(
    loss={"Age_Output": "mean_absolute_error", "Gender_Output": "binary_crossentropy"},
    jit_compile=run.jit_compile,
)
photos = np.random.default_rng(0).random((2, 128, 128, 3), dtype="float32")
answers = {"Age_Output": np.array([[30.0], [50.0]]), "Gender_Output": np.array([[0.0], [1.0]])}
losses = portrait.evaluate(photos, answers, verbose=0, return_dict=True)
parts = losses["Age_Output_loss"] + losses["Gender_Output_loss"]
print(sorted(losses))
print("the loss is the sum of its parts:", np.isclose(losses["loss"], parts))

# %% [markdown]
# ## 6. Data: `tf.data`
#
# Five terabytes of photos do not fit into 16 gigabytes of memory. They need not: a network wants one
# batch at a time. A `tf.data.Dataset` is a *pipeline* that brings them: it **e**xtracts (reads files),
# **t**ransforms (decodes, scales, shuffles, batches) and **l**oads (has the next batch ready in time).
# Here are its ten most useful operations, in the book's order.
#
# **1. `from_tensors`** makes a dataset of *one* element, the whole tensor.

# %% tags=["nbval-check-output"]
whole = tf.data.Dataset.from_tensors(tf.range(1, 11))
print(whole.element_spec)
for element in whole:
    print(element.numpy())

# %% [markdown]
# **2. `from_tensor_slices`** cuts along the first axis: ten elements.

# %% tags=["nbval-check-output"]
x = tf.data.Dataset.from_tensor_slices(tf.range(10))
y = tf.data.Dataset.from_tensor_slices(tf.range(0, 20, 2))
print(x.element_spec, "number of elements:", x.cardinality().numpy())

# %% [markdown]
# **3. `for`** goes through it, like through a list; Python's `zip` takes two at a time.

# %% tags=["nbval-check-output"]
print([int(element) for element in x])
print([(int(one), int(other)) for one, other in zip(x, y)])

# %% [markdown]
# > **Note on the book.** Its loop gives the loop variable the name of the dataset, which is gone after that,
# > and prints a name that does not exist. Its printed datasets show `shapes:` and `types:`; today one reads
# > `element_spec`.
#
# **4. `take(n)`** gives the first $n$ elements. **Predict first:** what does `take(12)` give of ten?

# %% tags=["nbval-check-output"]
for n in (1, 5, 12):
    print(f"take({n}):", [int(element) for element in x.take(n)])

# %% [markdown]
# **5. `Dataset.zip`** joins datasets into one of pairs: an image and its label, for instance.

# %% tags=["nbval-check-output"]
pairs = tf.data.Dataset.zip(x, y)
print([(int(one), int(other)) for one, other in pairs.take(3)])

# %% [markdown]
# **6. `map`** applies a function to each element. The function is traced into a graph, as in section 3.

# %% tags=["nbval-check-output"]
doubled = tf.data.Dataset.range(10).map(lambda number: number * 2)
print([int(element) for element in doubled])

# %% [markdown]
# **7. Names.** An element may be a dictionary; then nobody confuses input and label.

# %% tags=["nbval-check-output"]
named = pairs.map(lambda one, other: {"x": one, "y": other})
for element in named.take(2):
    print({name: int(value) for name, value in element.items()})

# %% [markdown]
# **8. `batch(n)`** puts $n$ elements together. (`drop_remainder=True` leaves out a last batch that is not
# full.)

# %% tags=["nbval-check-output"]
for element in named.batch(2):
    print({name: value.numpy().tolist() for name, value in element.items()})

# %% [markdown]
# **9. `shuffle(buffer)`** brings the elements in random order, anew in each pass. It works like a hat: it holds
# the first *buffer* elements, draws one, puts the next one in. **Predict first:** with a buffer of 3, which of
# 0 … 9 can come out first? When can 9 come out at the earliest, and 0 at the latest?

# %%
for buffer in (1, 3, 10):
    shuffled = tf.data.Dataset.range(10).shuffle(buffer, seed=run.seed)
    print(f"shuffle({buffer}):".ljust(12), [int(element) for element in shuffled])

# %% tags=["nbval-check-output"]
hat = tf.data.Dataset.range(10).shuffle(3)
passes = np.array([one.numpy() for one in hat.repeat(2000).batch(10)])
print("came out first, in 2,000 passes:", sorted({int(first) for first in passes[:, 0]}))
print("9 came out at the earliest as number", (passes == 9).argmax(axis=1).min() + 1)
print("0 came out at the latest as number", (passes == 0).argmax(axis=1).max() + 1)
print("each pass has every number once:", (np.sort(passes) == np.arange(10)).all())

# %% [markdown]
# So an element may come out very late, but at most *buffer* − 1 places early: a small buffer mixes badly, and `shuffle(1)`
# not at all. To mix all, the buffer must be as large as the dataset. (If that does not fit into memory, shuffle
# the file names.)
#
# **Order matters:** first `shuffle`, then `batch`. The other way round the batches change places, but who sits in
# a batch with whom never changes.

# %% tags=["nbval-check-output"]
numbers = tf.data.Dataset.range(10)
for title, pipeline in {"batch, then shuffle": numbers.batch(2).shuffle(5),
                        "shuffle, then batch": numbers.shuffle(10).batch(2)}.items():  # fmt: skip
    partners = {tuple(sorted(pair)) for pair in pipeline.repeat(300).as_numpy_iterator()}
    print(f"{title}: {len(partners)} different pairs in 300 passes")

# %% [markdown]
# > **Note on the book.** It shuffles after batching, which does just that: five pairs for ever. Of the 45
# > pairs that ten numbers can form, the right order brings all.
#
# **10. `repeat(n)`** goes through the data $n$ times. After `shuffle`, each pass has an order of its own.

# %% tags=["nbval-check-output"]
twice = numbers.shuffle(10).batch(2).repeat(2)
batches = [pair.tolist() for pair in twice.as_numpy_iterator()]
print(len(batches), "batches in place of 5")
for half in (batches[:5], batches[5:]):
    print("a whole pass:", np.sort(np.ravel(half)).tolist() == list(range(10)))

# %%
print("first pass: ", batches[:5])
print("second pass:", batches[5:])

# %% [markdown]
# Keras' `fit(epochs=2)` goes through a dataset twice (two *epochs*) by itself, so you will seldom need `repeat`.
#
# ### Further: keep the network fed
#
# A network that waits for data is wasted, above all on an expensive graphics card. Three things help:
# **`prefetch`** prepares the next batch while the network works on this one; **`map` with
# `num_parallel_calls`** prepares several at once; **`cache`** keeps what was prepared, so that only the first
# epoch pays. `tf.data.AUTOTUNE` lets TensorFlow choose the numbers.
#
# The next cell *imitates* a slow disk (20 ms for each batch) and a training step (10 ms) by sleeping, and notes
# when each begins and ends. (TensorFlow today adds some prefetching of its own; `plain` turns that off, to
# show the parts.) **Predict first:** eight batches one after another take 8 · (20 + 10) = 240 ms. How long with
# prefetch; with four prepared at once and prefetch; in the second pass with cache?


# %%
def watch(make_pipeline, passes=1):
    """Return when the batches of the last pass were prepared and trained on, in milliseconds."""
    spans = {"prepare": [], "train": []}

    def work(kind, duration):
        begin = time.perf_counter()
        time.sleep(duration)
        spans[kind].append((begin, time.perf_counter()))

    def read(number):
        work("prepare", 0.02)
        return number

    slow = {"map_func": lambda number: tf.numpy_function(read, [number], tf.int64)}
    plain = tf.data.Options()
    plain.experimental_optimization.apply_default_optimizations = False
    plain.threading.private_threadpool_size = 8
    pipeline = make_pipeline(tf.data.Dataset.range(8), slow).with_options(plain)
    for _ in range(passes):
        spans["prepare"], spans["train"] = [], []
        start = time.perf_counter()
        for _ in pipeline:
            work("train", 0.01)
    return {
        kind: [(1000 * (begin - start), 1000 * (end - begin)) for begin, end in pairs]
        for kind, pairs in spans.items()
    }


# %%
pipelines = {
    "one after another": watch(lambda numbers, slow: numbers.map(**slow)),
    "prefetch": watch(lambda numbers, slow: numbers.map(**slow).prefetch(2)),
    "4 at once, prefetch": watch(
        lambda numbers, slow: numbers.map(**slow, num_parallel_calls=4).prefetch(2)
    ),
    "cache, second pass": watch(lambda numbers, slow: numbers.map(**slow).cache(), passes=2),
}

# %%
figure, (panel,) = figures.axes(width=8, height=3)
style = {"edgecolor": "black", "linewidth": 0.5}
for row, spans in enumerate(pipelines.values()):
    first_ends = sum(spans["prepare"][0]) if spans["prepare"] else 0
    lanes = sum(begin < first_ends for begin, _ in spans["prepare"])  # how many at the same time
    for number, span in enumerate(spans["prepare"]):
        lane = (-row + 0.4 * (number % lanes) / lanes, 0.4 / lanes)
        panel.broken_barh([span], lane, fc="white", hatch="////", **style)
    panel.broken_barh(spans["train"], (-row - 0.3, 0.3), fc="0.2", **style)
panel.set(xlabel="time (ms)", yticks=[0, -1, -2, -3], yticklabels=list(pipelines), ylim=(-3.6, 0.6))
figures.show(figure, "Eight batches, prepared (hatched) and trained on (dark): where the dark row has no gaps, nobody waits.")  # fmt: skip

# %% [markdown]
# Without any loss on the way it would be 8 · 20 + 10 = 170 ms with prefetch, 20 + 8 · 10 = 100 ms with four at once, and
# 8 · 10 = 80 ms from the cache.
#
# ## 7. Experiment 1 · Your first network
#
# ### 7.1 Prepare the data
#
# MNIST: 60,000 handwritten digits to train on and 10,000 to test, from clerks and pupils, 28 × 28 pixels
# each. It comes through TensorFlow Datasets as `tf.data` pipelines of dictionaries. Nine tenths of the
# training images are for *training*, the rest for *validation*: images that the network does not learn from, to
# watch how it does on new ones. The *test* images are kept for the end. `quick` reads a small part of MNIST
# that ships with the course.

# %%
name = run.scale(quick="mnist_sample", standard="mnist", full="mnist")
train, validation, test = tfds.load(
    name, split=["train[:90%]", "train[90%:]", "test"], data_dir=data.tfds_dir(name)
)
print("examples:", [len(part) for part in (train, validation, test)])
for name, value in train.element_spec.items():
    print(name.ljust(5), value.shape, value.dtype.name)

# %%
examples = list(train.take(40).as_numpy_iterator())
figures.images(
    [255 - example["image"].repeat(3, axis=2) for example in examples],
    [example["label"] for example in examples],
    "Forty training images and their labels.", columns=10, size=0.8,
)  # fmt: skip

# %% [markdown]
# For you these are digits. For the network each is a tensor of shape (28, 28, 1):

# %%
digit = examples[0]["image"][:, :, 0]
figure, panels = figures.axes(1, 2, width=4, height=3.6)
panels[0].imshow(digit, cmap="Greys")
panels[0].add_patch(Rectangle((7.5, 7.5), 12, 12, fc="none", ec=figures.COLOURS[1], lw=2))
panels[1].imshow(digit[8:20, 8:20], cmap="Greys", alpha=0.5)
for (row, column), value in np.ndenumerate(digit[8:20, 8:20]):
    panels[1].text(column, row, value, ha="center", va="center", fontsize=6.5)
for panel in panels:
    panel.axis("off")
figures.show(
    figure, "An image is a table of numbers, 0 for paper to 255 for ink; right: the framed part."
)

# %% [markdown]
# `parse_fn` from the course's `preprocessing.py` scales the image to [0, 1] and turns the label 3 into
# ten numbers, `[0, 0, 0, 1, 0, …]` (*one-hot*), to compare with the ten outputs:

# %%
figures.source(parse_fn)

# %% [markdown]
# Five operations make the pipeline: `map`, `cache`, `shuffle`, `batch`, `prefetch`. Mind the order: what is the
# same in every epoch comes before `cache` (which keeps the prepared examples), what is new each time after it; `prefetch`,
# last, prepares the next batch while the network works on this one.


# %% tags=["definition"]
def flatten(image, label):
    """Return the image as a row of 784 numbers, and its label."""
    return tf.reshape(image, (784,)), label


def make_batches(pairs, buffer=1, batch_size=64):
    """Return batches of (pixels, label); a buffer of 1 leaves the order as it is."""
    return pairs.shuffle(buffer).batch(batch_size).prefetch(tf.data.AUTOTUNE)


# %%
train_pairs, validation_pairs, test_pairs = (
    part.map(parse_fn, num_parallel_calls=tf.data.AUTOTUNE).map(flatten).cache()
    for part in (train, validation, test)
)
train_batches = make_batches(train_pairs, buffer=len(train_pairs))
validation_batches, test_batches = make_batches(validation_pairs), make_batches(test_pairs)

# %% tags=["nbval-check-output"]
pixels, labels = next(iter(train_batches))
print("pixels", pixels.shape, pixels.dtype.name, "| labels", labels.shape)
print("from", pixels.numpy().min(), "to", pixels.numpy().max())

# %% [markdown]
# ### 7.2 Build and train
#
# The network is `make_digits` of section 5. Three more things are to be said before training:
#
# - the *optimiser*: how parameters follow the gradient. Adam is gradient descent with refinements (lab 2); its
#   learning rate climbs for a while, then falls to zero (`one_cycle`, lab 4);
# - the *loss*: for one of ten classes it is *categorical cross-entropy*, small when the right class gets a
#   high probability (lab 4);
# - the *metric*: what people want to know. *Accuracy* is the share of images that were read correctly.
#
# **Predict first:** what accuracy has the network before any training? And after, on digits that it has
# never seen?


# %% tags=["definition"]
def compiled(make, learning_rate, repeat=0):
    """Return a network made by `make`, ready to train; each `repeat` starts from other weights."""
    keras.utils.set_random_seed(run.seed + repeat)
    model = make()
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=run.jit_compile,
    )
    return model


# %%
epochs = run.scale(quick=10, standard=10, full=10)
learning_rate = schedules.one_cycle(peak=3e-3, steps=epochs * len(train_batches))
network = compiled(make_digits, learning_rate)
_, before = network.evaluate(test_batches, verbose=0)
history = network.fit(
    train_batches, validation_data=validation_batches, epochs=epochs, shuffle=False, verbose=0,
    callbacks=run.callbacks("first_network", data=train_batches),
)  # fmt: skip
_, after = network.evaluate(test_batches, verbose=0)
print(f"accuracy on test images: {before:.3f} before training, {after:.3f} after")

# %% [markdown]
# That is all: `compile` says how to train, `fit` trains. Each *epoch* goes through all training images once,
# each *step* takes one batch, computes the gradient as in section 4, and updates the parameters (55,050).
# (`shuffle=False`, because the pipeline shuffles already; `run.callbacks` keeps logs, and a file from which
# training goes on when you interrupt it and run the cell again.)
#
# Do the two hidden layers matter? **Predict first:** how many digits of a hundred will the network misread
# when each of its ten outputs is just a weighted sum of the pixels? (Such a network may start from weights of
# zero, which will make a nice picture. One with hidden layers may not: lab 5.)


# %% tags=["definition"]
def make_linear():
    """Return a network without hidden layers: 784 pixels -> 10 probabilities."""
    inputs = keras.Input((784,), name="pixels")
    weigh = layers.Dense(10, activation="softmax", kernel_initializer="zeros", name="Output")
    return keras.Model(inputs, weigh(inputs), name="linear")


# %%
linear = compiled(make_linear, learning_rate)
history_linear = linear.fit(
    train_batches, validation_data=validation_batches, epochs=epochs, shuffle=False, verbose=0,
    callbacks=run.callbacks("linear", data=train_batches),
)  # fmt: skip
_, after_linear = linear.evaluate(test_batches, verbose=0)
run.record(accuracy_first_network=after, accuracy_linear=after_linear)
run.record(accuracy_gain=after - after_linear)
print(f"accuracy on test images: {after_linear:.3f} without hidden layers")

# %% [markdown]
# ### 7.3 Show the results

# %%
figures.curves(
    {"two hidden layers": history.history, "none": history_linear.history},
    ["accuracy", "val_accuracy"],
    labels={"accuracy": "accuracy on training images", "val_accuracy": "accuracy on validation images"},
    caption="Accuracy after each epoch, on images that the networks learned from (left) and on new ones.",
)  # fmt: skip

# %% [markdown]
# What does an answer look like? Ten probabilities. Here is the test image that the network was least sure of:

# %%
test_pixels, test_labels = next(iter(test_pairs.batch(len(test_pairs))))
probabilities = network.predict(test_pixels, verbose=0)
truth = test_labels.numpy().argmax(axis=1)
unsure = probabilities.max(axis=1).argmin()

figure, panels = figures.axes(1, 2, width=3.6, height=2.6)
panels[0].imshow(tf.reshape(test_pixels[unsure], (28, 28)), cmap="Greys")
panels[0].set_title(f"label {truth[unsure]}")
panels[0].axis("off")
panels[1].bar(range(10), probabilities[unsure], color=figures.COLOURS[0])
panels[1].set(xlabel="digit", ylabel="probability", xticks=range(10), ylim=(0, 1))
figures.show(figure, "A doubtful digit and the ten probabilities that the network gives it.")

# %% [markdown]
# And here are the first (at most twenty) that it got wrong. Would you have read them all?

# %%
guess = probabilities.argmax(axis=1)
wrong = np.flatnonzero(guess != truth)[:20]
figures.images(
    [1 - np.reshape(test_pixels[i], (28, 28, 1)).repeat(3, axis=2) for i in wrong],
    [f"{truth[i]}, read as {guess[i]}" for i in wrong],
    "Test images that the network reads wrongly: label, and its answer.", columns=10, size=0.95,
)  # fmt: skip

# %% [markdown]
# **What happened, and why.** Before training, the network guesses: about one in ten is right. After it, most
# digits are read. The network without hidden layers can only add up evidence, pixel by pixel, and this can be
# shown as an image: each weight times the spread of its pixel (a pixel that hardly ever has ink can decide
# nothing). Where ink speaks for the digit it is bright, where ink speaks against it, dark: a 0 must be empty in the
# middle. One such template must fit *every* way of writing a 7. Hidden layers make features first ("a stroke
# here, a gap there"), and can combine them in more than one way.

# %%
weights = linear.get_layer("Output").kernel.numpy()  # (784, 10)
evidence = weights * test_pixels.numpy().std(axis=0)[:, None]
figure, panels = figures.axes(2, 5, width=1.4, height=1.55)
for digit, panel in enumerate(panels):
    limit = np.abs(evidence[:, digit]).max()
    panel.imshow(evidence[:, digit].reshape(28, 28), vmin=-limit, vmax=limit)
    panel.set_title(digit)
    panel.axis("off")
figures.show(
    figure, "The network without hidden layers: for each digit, ink on bright pixels speaks for it."
)

# %% [markdown]
# ## 8. Experiment 2 · What shuffling is worth
#
# ### 8.1 Prepare the data
#
# Files often come sorted: first all zeros, then all ones, … Does it matter? We sort the training digits by label
# and shuffle with buffers of 1 (not at all), a tenth of the images, a third, and all.

# %%
all_pixels, all_labels = next(iter(train_pairs.batch(len(train_pairs))))
order = np.argsort(all_labels.numpy().argmax(axis=1), kind="stable")
sorted_pairs = tf.data.Dataset.from_tensor_slices(
    (tf.gather(all_pixels, order), tf.gather(all_labels, order))
)
n_images, batch_size = len(sorted_pairs), run.scale(quick=16, standard=64, full=64)
buffers = {"none": 1, "tenth": n_images // 10, "third": n_images // 3, "all": n_images}
for name, buffer in buffers.items():
    _, labels = next(iter(make_batches(sorted_pairs, buffer, batch_size)))
    print(f"buffer {name:6} first batch:", np.bincount(labels.numpy().argmax(1), minlength=10))

# %% [markdown]
# ### 8.2 Build and train
#
# Each row above counts the digits 0 to 9 in the first batch of an epoch. The network is that of Experiment 1,
# the learning rate now constant, so that every batch counts alike. Each training is repeated from other
# random weights.
#
# **Predict first:** the last batches of a sorted epoch hold nothing but nines. Which digits will the network
# read well afterwards? And which buffer will be large enough?

# %%
repeats = run.scale(quick=2, standard=3, full=3)
recognised = {name: [] for name in buffers}
for name, buffer in buffers.items():
    batches = make_batches(sorted_pairs, buffer, batch_size)
    for repeat in range(repeats):
        model = compiled(make_digits, learning_rate=3e-3, repeat=repeat)
        model.fit(
            batches, epochs=2, shuffle=False, verbose=0,
            callbacks=run.callbacks(f"buffer-{name}-{repeat}", data=batches),
        )  # fmt: skip
        answers = model.predict(test_pixels, verbose=0).argmax(axis=1)
        matrix = tf.math.confusion_matrix(truth, answers, num_classes=10).numpy()
        recognised[name].append(matrix)

# %% [markdown]
# ### 8.3 Show the results

# %%
shares = {
    name: np.mean([matrix.diagonal() / matrix.sum(axis=1) for matrix in matrices], axis=0)
    for name, matrices in recognised.items()
}
figure, (panel,) = figures.axes(width=7.5, height=2.8)
panel.imshow(list(shares.values()), cmap="Greys", vmin=0, vmax=1, aspect="auto")
for row, share in enumerate(shares.values()):
    for digit, value in enumerate(share):
        colour = "white" if value > 0.5 else "black"
        panel.text(digit, row, f"{value:.2f}", ha="center", va="center", color=colour)
panel.set(xlabel="digit", xticks=range(10), ylabel="buffer", yticks=range(4), yticklabels=shares)
panel.grid(False)
figures.show(figure, "Share of each digit's test images that is read correctly, by the size of the shuffle buffer.")  # fmt: skip

# %%
accuracies = {
    name: [np.trace(matrix) / matrix.sum() for matrix in matrices]
    for name, matrices in recognised.items()
}
run.record(accuracy_buffer_all=accuracies["all"])
run.record(accuracy_gain_shuffling=np.subtract(accuracies["all"], accuracies["none"]))
for name, values in accuracies.items():
    print(f"buffer {name:6} accuracy on test images", np.round(values, 3))

# %% [markdown]
# **What happened, and why.** Each step makes the network better on the batch at hand, and takes no account of anything else. After
# a long row of nines, "9" is the cheapest answer to everything, and what was learned about zeros is
# overwritten: the network *forgets*. A buffer of a tenth holds about one digit and mixes it with its neighbours
# only: look which digits the second row still knows. The third row shows whether a third is enough here; on
# other data it may not be, and a full buffer always is. The training loss does not warn you of a sorted pipeline: it can
# look excellent, because within one digit the task is easy. Validation images do warn you; we left them out here. When a network learns nothing useful,
# look at a few batches first.
#
# ## 9. Results
#
# Accuracies are shares of the test images. `accuracy_gain` is what the two hidden layers add, in Experiment 1;
# `accuracy_gain_shuffling` is what a full buffer adds to none, in Experiment 2 (mean ± standard deviation
# over repeats). The book's first chapter trains nothing, so all numbers are ours.

# %%
run.table()

# %% [markdown]
# ## 10. Exercises
#
# They need only the set-up cell. Write your code in place of the `...`, run the cell, then run the check below
# it.
#
# ### Exercise 1 · From images to vectors
#
# A batch of grey images, whole numbers from 0 to 255, becomes what a dense layer wants: decimal numbers in
# [0, 1], one row for each image. (`tf.cast`, `tf.reshape`; a size of −1 means "whatever is left".)


# %% nbgrader={"grade": false, "grade_id": "to_vectors", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def to_vectors(images):
    """Return float32 in [0, 1], shape (batch, height · width); images: uint8 (batch, height, width)."""
    ### BEGIN SOLUTION
    scaled = tf.cast(images, tf.float32) / 255
    return tf.reshape(scaled, (len(images), -1))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "to_vectors_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(to_vectors) as check:
    tiny = tf.constant([[[0, 255], [51, 102], [0, 0]], [[255, 255], [0, 0], [204, 0]]], tf.uint8)
    answer = to_vectors(tiny)
    shape = None if answer is None else tuple(answer.shape)
    check(shape, (2, 6), "one row for each image: the batch stays the first axis")
    kind = np.asarray(answer).dtype.name
    check(kind, "float32", "cast to tf.float32 before you divide")
    right = [[0, 1, 0.2, 0.4, 0, 0], [1, 1, 0, 0, 0.8, 0]]
    check(answer, right, "divide by the largest value that a pixel can have, 255")

# %% [markdown]
# ### Exercise 2 · One step downhill
#
# For the smallest network, $\hat y = w x + b$, do one step of gradient descent on the *mean* squared error of all
# examples. Let a `GradientTape` find the gradients. (It watches variables: begin with `w = tf.Variable(w)`.)


# %% nbgrader={"grade": false, "grade_id": "descent_step", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def descent_step(w, b, x, y, learning_rate):
    """Return the pair (w, b) after one step; w and b are numbers, x and y arrays of shape (n,)."""
    ### BEGIN SOLUTION
    w, b = tf.Variable(w), tf.Variable(b)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((w * x + b - y) ** 2)
    gradient_w, gradient_b = tape.gradient(loss, [w, b])
    return w - learning_rate * gradient_w, b - learning_rate * gradient_b
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "descent_step_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(descent_step) as check:
    one = np.array([3.0], "float32"), np.array([5.0], "float32")
    answer = descent_step(2.0, 1.0, *one, 0.01)
    check(None if answer is None else len(answer), 2, "return two numbers, w and b")
    w_new, b_new = (float(value) for value in answer)
    check(w_new < 2.0, True, "downhill: subtract the gradient")
    check([w_new, b_new], [1.88, 0.96], "the gradients are 12 and 4; take learning_rate of each")
    two = np.array([3.0, 1.0], "float32"), np.array([5.0, 3.0], "float32")
    answer = [float(value) for value in descent_step(2.0, 1.0, *two, 0.01)]
    check(answer, [1.94, 0.98], "the loss is the mean over the examples, not their sum")

# %% [markdown]
# ### Exercise 3 · Is that true?
#
# Somebody shows a digit and claims what it is. Build the network that reads the digit *and* judges the claim,
# in the functional way:
#
# - inputs `image` (28, 28, 1) and `claim` (10,), in this order;
# - the image is flattened and goes through a dense layer of 32 with ReLU (call its output *seen*);
# - outputs, in this order and from layers of these names: `digit`, ten probabilities, from *seen*;
# - and `truth`, one probability, from *seen* and the claim, concatenated, through a dense layer of 16
#   with ReLU.


# %% nbgrader={"grade": false, "grade_id": "make_judge", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def make_judge():
    """Return the model with inputs (image, claim) and outputs (digit, truth)."""
    ### BEGIN SOLUTION
    image = keras.Input((28, 28, 1), name="image")
    claim = keras.Input((10,), name="claim")
    seen = layers.Dense(32, activation="relu")(layers.Flatten()(image))
    digit = layers.Dense(10, activation="softmax", name="digit")(seen)
    both = layers.Dense(16, activation="relu")(layers.Concatenate()([seen, claim]))
    truth = layers.Dense(1, activation="sigmoid", name="truth")(both)
    return keras.Model([image, claim], [digit, truth])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "make_judge_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(make_judge) as check:
    judge = make_judge()
    shapes = None if judge is None else str([tuple(tensor.shape[1:]) for tensor in judge.inputs])
    check(shapes, "[(28, 28, 1), (10,)]", "two inputs: first the image, then the claim")
    shapes = str([tuple(tensor.shape[1:]) for tensor in judge.outputs])
    check(shapes, "[(10,), (1,)]", "two outputs: first the digit, then the truth")
    check(" ".join(judge.output_names), "digit truth", "name the heads digit and truth")
    dense = [layer for layer in judge.layers if isinstance(layer, layers.Dense)]
    activations = {layer.units: layer.activation.__name__ for layer in dense}
    check(activations.get(1), "sigmoid", "a probability of one thing lies in [0, 1]: sigmoid")
    check(activations.get(10), "softmax", "ten probabilities with the sum 1: softmax")
    check(
        [activations.get(n) for n in (32, 16)] == ["relu"] * 2, True, "ReLU in both hidden layers"
    )
    hint = "concatenate the 32 numbers from the image with the claim, nothing else"
    check(judge.count_params(), 26155, hint)

# %% [markdown]
# ### Exercise 4 · A pipeline in the right order
#
# From images and labels make a dataset of batches of 4 pairs. Each pass has a new order, in which any two
# examples can meet in a batch; images are scaled to [0, 1].


# %% nbgrader={"grade": false, "grade_id": "make_pipeline", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def make_pipeline(images, labels):
    """Return a tf.data.Dataset of (images, labels); images: float32 (n, pixels), 0 to 255."""
    ### BEGIN SOLUTION
    pairs = tf.data.Dataset.from_tensor_slices((images, labels))
    scaled = pairs.map(lambda image, label: (image / 255, label))
    return scaled.shuffle(len(images)).batch(4).prefetch(tf.data.AUTOTUNE)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "make_pipeline_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(make_pipeline) as check:
    n = 60
    images = np.repeat(np.arange(n, dtype="float32")[:, None], 3, axis=1)
    pipeline = make_pipeline(images, np.arange(n))
    sizes = None if pipeline is None else [len(labels) for _, labels in pipeline]
    check(sizes, [4] * 15, "batches of 4")
    first, second = (list(pipeline.as_numpy_iterator()) for _ in range(2))
    pixels, labels = (np.concatenate(parts) for parts in zip(*first))
    check(np.sort(labels), np.arange(n), "each example comes once in a pass")
    check(pixels.max(), 59 / 255, "divide the images by 255, not the labels")
    check(pixels[:, 0] * 255, labels, "image and label must stay together: shuffle the pairs")
    together = sum(labels.max() - labels.min() == 3 for _, labels in first)
    check(together < 5, True, "shuffle first, then batch: neighbours are still together")
    early = max(int(next(iter(pipeline))[1].numpy().max()) for _ in range(20))
    check(early >= 50, True, "take a larger buffer: late examples never come early")
    again = np.concatenate([labels for _, labels in second])
    check((again == labels).all(), False, "the second pass has the order of the first")

# %% [markdown]
# **Try this, too:** `run.scale(quick="fashion_mnist_sample", …)` in Experiment 1 brings clothes in place of
# digits (in `quick`; in `standard` change that value, too). How much harder are they? And does the network get better with 256 neurons in place of 64?
#
# ## 11. What to remember
#
# - A tensor has a shape and a type. Most errors are about one of the two: print them.
# - TensorFlow computes at once; `tf.function` writes a graph down, anew for each new shape and type.
# - A gradient says how the loss changes with each parameter. Training is many small steps against it.
# - `Sequential` for a chain, the functional way for all else. Each output has its own activation and loss.
# - `map`, `cache`, `shuffle`, `batch`, `prefetch`, in this order. The buffer should hold all the data.
#
# **Read on.** Abadi et al., *TensorFlow: A System for Large-Scale Machine Learning*, 2016
# (arXiv:1605.08695) · Agrawal et al., *TensorFlow Eager*, 2019 (arXiv:1903.01855) · Murray et al., *tf.data: A
# Machine Learning Data Processing Framework*, 2021 (arXiv:2101.12127) · Baydin et al., *Automatic Differentiation
# in Machine Learning: a Survey*, JMLR 18, 2018 · LeCun et al., *Gradient-Based Learning Applied to Document
# Recognition*, 1998 · Chollet, *Deep Learning with Python*, chapters on tensors and Keras.

# %%
run.check()
