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
# # Lab 4 · CIFAR-10: from dense layers to convolution
#
# After this lab you can
#
# - compute a convolution and a pooling by hand, and predict output sizes and parameter counts;
# - say what softmax and cross-entropy do to the ten outputs of a classifier;
# - build an input pipeline with `tf.data` that augments whole batches;
# - measure what convolution gains over dense layers on images, and what augmentation adds;
# - look inside a trained network: which classes it confuses, and what its kernels make of an image.
#
# **Chapter 4** of the book. **Needs** lab 2 and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import data, figures, schedules
from preprocessing import color, flip, image_batches, parse_aug_fn, parse_fn, random_crop, rotate, zoom  # fmt: skip
import keras, numpy as np, pandas as pd, tensorflow as tf, tensorflow_datasets as tfds
from keras import layers

run = labkit.start("04_cifar10")

# %% [markdown]
# ## 1. Convolution
#
# A dense layer gives every pixel its own weight for every neuron: it must learn a cat on the left
# and a cat on the right separately. A *convolution* slides one small *kernel* over the image and
# computes, at each place, the sum of products with the patch below. (Mathematicians call this
# *cross-correlation*; their convolution turns the kernel by 180° first.)

# %% tags=["nbval-check-output"]
image = np.array([[1, 1, 0, 1], [2, 3, 2, 0], [1, 4, 2, 1], [0, 1, 2, 3]], "float32")
kernel = np.array([[1, 1, 0], [0, -1, 2], [2, 0, 1]], "float32")
print("first output by hand:", (image[:3, :3] * kernel).sum())
print(
    tf.nn.conv2d(image[None, :, :, None], kernel[:, :, None, None], 1, "VALID")[0, :, :, 0].numpy()
)

# %% [markdown]
# The 4 × 4 image shrinks to 2 × 2, because the kernel must fit inside. *Padding* with zeros
# (`same`) keeps the size; a *stride* of $S$ pixels divides it by about $S$. With input size $I$ and kernel $K$:
#
# $$\text{same: } \left\lceil \frac{I}{S} \right\rceil \qquad
#   \text{valid: } \left\lceil \frac{I - K + 1}{S} \right\rceil.$$
#
# > **Note on the book.** Its formulas lack the rounding up, $\lceil\,\rceil$; without it some of
# > the sizes below come out wrong.

# %% tags=["nbval-check-output"]
print("input kernel stride   same valid")
for size, kernel_size, stride in [(4, 3, 1), (5, 3, 2), (28, 3, 1), (32, 5, 2), (224, 7, 2)]:
    sizes = [
        layers.Conv2D(1, kernel_size, stride, padding=padding).compute_output_shape(
            (1, size, size, 1)
        )[1]
        for padding in ("same", "valid")
    ]
    assert sizes == [-(-size // stride), -(-(size - kernel_size + 1) // stride)]
    print(f"{size:5} {kernel_size:6} {stride:6} {sizes[0]:6} {sizes[1]:5}")

# %% [markdown]
# A colour image has three channels, so a kernel is a block of $k_h \times k_w \times C_\text{in}$
# weights, and each kernel makes one channel of the output. Parameters of a layer:
# $(C_\text{in} k_h k_w + 1) \cdot n_\text{kernels}$, where the 1 is the bias. **Predict first:** how many
# for two 3 × 3 kernels on RGB without bias, and for 32 kernels on 4 channels with bias?

# %% tags=["nbval-check-output"]
for channels, kernels, bias in [(3, 2, False), (4, 32, True)]:
    layer = layers.Conv2D(kernels, 3, use_bias=bias)
    layer.build((None, 28, 28, channels))
    print(channels, "channels,", kernels, "kernels:", layer.count_params(), "parameters")

# %% [markdown]
# What can nine numbers see? Before networks learned their kernels, people designed them:

# %%
from sklearn.datasets import load_sample_image

photo = load_sample_image("china.jpg")[60:380, 100:520].astype("float32") / 255
kernels = {
    "blur": np.full((3, 3), 1 / 9),
    "vertical edges": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 2,
    "horizontal edges": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]) / 2,
}
grey = photo.mean(axis=2)[None, :, :, None]
maps = [
    np.clip(np.abs(tf.nn.conv2d(grey, k[:, :, None, None].astype("float32"), 1, "SAME")[0]), 0, 1)
    for k in kernels.values()
]
figures.images(
    [photo, *(np.repeat(m, 3, axis=2) for m in maps)], ["photo", *kernels],
    "A kernel that blurs, and two that find edges: bright where the grey changes strongly.",
    columns=4, size=2.6,
)  # fmt: skip

# %% [markdown]
# *Pooling* keeps the largest (or mean) value of each small window, channel by channel. It has no
# parameters and makes the maps smaller; if the pattern moves by a pixel, the output often stays the
# same.

# %% tags=["nbval-check-output"]
print(tf.nn.max_pool2d(image[None, :, :, None], 2, 2, "VALID")[0, :, :, 0].numpy())
print(tf.nn.avg_pool2d(image[None, :, :, None], 2, 2, "VALID")[0, :, :, 0].numpy())

# %% [markdown]
# ## 2. Ten classes: softmax and cross-entropy
#
# The last layer gives one number $z_i$ for each class. *Softmax* turns them into probabilities, and
# *categorical cross-entropy*, averaged over a batch, is large when the true class got a small
# probability:
#
# $$\hat y_i = \frac{e^{z_i}}{\sum_j e^{z_j}}, \qquad
#   \mathrm{CCE} = -\sum_j y_j \ln \hat y_j = -\ln \hat y_\text{true}.$$
#
# > **Note on the book.** Its example, 0.6 for the true class, gives 0.22 there: that is the logarithm
# > to base 10. TensorFlow takes the natural one. And class 2 of ten is `[0, 0, 1, 0, …]`, since
# > counting begins at 0.

# %% tags=["nbval-check-output"]
print("softmax", tf.nn.softmax([3.0, 1.0, -3.0]).numpy().round(2))
cat = tf.one_hot([3], 10)
probabilities = tf.constant([[0.02, 0.02, 0.1, 0.6, 0.04, 0.14, 0.02, 0.02, 0.02, 0.02]])
print("cross-entropy", keras.losses.CategoricalCrossentropy()(cat, probabilities).numpy().round(3))
print("class 2 of 10", tf.one_hot(2, 10).numpy().astype(int))

# %% [markdown]
# ## 3. Experiment · Dense against convolutional, with and without augmentation
#
# ### 3.1 Prepare the data
#
# CIFAR-10 has 60,000 colour photos of 32 × 32 pixels in ten classes, 6,000 each. It comes through
# TensorFlow Datasets: the first 90 % of its training part are for training, the rest for validation.
# `quick` reads a small part that ships with the course.

# %%
name = run.scale(quick="cifar10_sample", standard="cifar10", full="cifar10")
(train, validation, test), info = tfds.load(
    name, split=["train[:90%]", "train[90%:]", "test"],
    data_dir=data.tfds_dir(name), with_info=True,
)  # fmt: skip
classes = info.features["label"].names
sizes = [int(part.cardinality()) for part in (train, validation, test)]
print(dict(zip(["training", "validation", "test"], sizes)))

# %%
counts = np.bincount([int(example["label"]) for example in train], minlength=10)
pd.DataFrame({"class": classes, "training images": counts}).T

# %% [markdown]
# > **Note on the book.** On the whole data set our counts differ from the book's (4,492 airplanes, 4,473
# > automobiles, …): those come from version 1.0.2 of the data set, which dealt the images in another
# > order. The test images are the same.

# %%
examples = list(train.take(32))
figures.images(
    [example["image"] for example in examples], [classes[example["label"]] for example in examples],
    "Thirty-two training images and their classes.",
)  # fmt: skip

# %% [markdown]
# *Data augmentation* makes new training images out of the old ones, by changes after which the label is
# still right. It works against overfitting. Validation and test images stay as they are.
#
# `parse_fn` scales an image to [0, 1] and makes its label one-hot; `flip`, `color`, `rotate` and
# `zoom` change images at random, and `random_crop` shifts them by up to four pixels; `parse_aug_fn` does what `parse_fn` does, then makes such changes. They
# work on whole batches and take their randomness from a *seed*, so that a run can be repeated. (The
# book's colour changes can leave [0, 1]; ours are cut off there.)

# %%
figures.source(parse_aug_fn)

# %%
batch, _ = parse_fn(next(iter(train.batch(8).skip(1))))
rows = [batch, *(change(batch, seed=(1, 2)) for change in (flip, color, rotate, zoom, random_crop))]
names = ["as it is", "flip", "color", "rotate", "zoom", "random_crop"]
figures.images(
    np.concatenate(rows), [title for name in names for title in [name, *[""] * 7]],
    "Eight images, and what each function does to them; every image draws its own numbers.",
)  # fmt: skip

# %% [markdown]
# Which changes help? One that turns a possible photo into another possible photo. A flipped car is
# a car; but the test set has no ships turned by 90°. The book's `parse_aug_fn` uses flip, color, rotate
# and zoom. We train with `flip` and `random_crop` alone, which is usual for CIFAR-10 (He et al., 2016).
# So our third network is not quite the book's Model-3; the last exercise tries its augmentation.

# %% tags=["nbval-check-output"]
book_images, _ = parse_aug_fn(next(iter(train.batch(64))), seed=(1, 2))
print(
    book_images.shape,
    book_images.dtype.name,
    "in [0, 1]:",
    bool(tf.reduce_all((book_images >= 0) & (book_images <= 1))),
)

# %%
figures.images(
    list(book_images[:32]), [""] * 32, "Half a batch of 64 from the book's augmentation."
)

# %% [markdown]
# `image_batches` puts it together: it shuffles, makes batches (of 64 in the book), then changes whole
# batches while the network computes on the one before (`prefetch`). Every batch gets a seed of its
# own, a new one in every epoch.

# %%
figures.source(image_batches)

# %%
batch_size = run.scale(quick=32, standard=64, full=64)
options = {"batch_size": batch_size, "shuffle": True, "seed": run.seed}
plain_train = image_batches(train, **options)
augmented_train = image_batches(train, augment=[flip, random_crop], **options)
validation_batches, test_batches = image_batches(validation), image_batches(test)
still_train = image_batches(train)  # for measuring accuracy on the training images as they are

# %% [markdown]
# ### 3.2 Build and train
#
# The book's two networks. Convolutions and pooling make features (*feature extractor*); flatten and
# dense layers classify them. For the dense one its text names six ReLU layers and one dropout of 30 %; the
# widths below are ours. In `quick` the widths are a quarter, to fit a minute. Both begin by
# moving the pixels from [0, 1] to [−1, 1]: inputs around zero train faster.


# %% tags=["definition"]
def make_dense(share=1.0, name="dense"):
    """Return six dense ReLU layers and a softmax: (32, 32, 3) -> 10 probabilities."""
    stack = [keras.Input((32, 32, 3)), layers.Rescaling(2.0, offset=-1.0), layers.Flatten()]
    for width in (1024, 512, 512, 256, 256, 128):
        stack.append(layers.Dense(int(width * share), activation="relu"))
    stack += [layers.Dropout(0.3), layers.Dense(10, activation="softmax", dtype="float32")]
    return keras.Sequential(stack, name=name)


def make_cnn(share=1.0, name="cnn"):
    """Return the book's five convolutions and two dense layers: (32, 32, 3) -> 10 probabilities."""
    widths = [int(width * share) for width in (64, 128, 256, 128, 64)]
    stack = [keras.Input((32, 32, 3)), layers.Rescaling(2.0, offset=-1.0)]
    stack += [layers.Conv2D(widths[0], 3, activation="relu"), layers.MaxPooling2D()]
    for width in widths[1:]:
        stack.append(layers.Conv2D(width, 3, activation="relu"))
    stack += [layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dropout(0.5)]
    return keras.Sequential(
        [*stack, layers.Dense(10, activation="softmax", dtype="float32")], name=name
    )


# %% tags=["nbval-check-output"]
print("dense", f"{make_dense().count_params():,}", " cnn", f"{make_cnn().count_params():,}")
for layer in make_cnn().layers:
    print(f"{type(layer).__name__:13} {layer.output.shape[1:]!s:14} {layer.count_params():9,}")

# %% [markdown]
# **Predict first:** the dense network has more parameters. Which of the two will classify more test
# images correctly, and by how much? Will augmentation raise the *training* accuracy?
#
# The recipe is ours, made for few epochs (the book: 100 epochs, Adam at a constant rate, no label
# smoothing, no rescaling to [−1, 1]): Adam, whose learning rate rises during the first fifth of the
# steps and then falls to zero along a cosine (*one cycle*), and targets softened by 10 % (*label
# smoothing*), so that the network need not be certain. `keep_best` chooses the epoch by the
# *validation* loss; nothing is chosen by the test images. (The dense network gets a lower peak of the rate and, in `quick`
# and `full`, fewer epochs.)


# %%
figure, (panel,) = figures.axes(width=4.5, height=2.4)
rate = schedules.one_cycle(peak=1.5e-3, steps=100)
panel.plot([float(rate(step)) for step in range(100)])
panel.set(xlabel="share of the training (%)", ylabel="learning rate")
figures.show(figure, "The learning rate of one cycle: up for a fifth of the steps, then down.")


# %% tags=["definition"]
def train_network(make, name, batches, validation_batches, epochs, peak):
    """Build, compile and fit a network; return it, as in its best epoch, and its history."""
    keras.utils.set_random_seed(run.seed)
    with run.fast():
        model = make(run.scale(quick=0.25, standard=1.0, full=1.0), name=name)
    model.compile(
        keras.optimizers.Adam(schedules.one_cycle(peak, epochs * len(batches))),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy"], jit_compile=run.jit_compile,
    )  # fmt: skip
    keep_best = keras.callbacks.EarlyStopping("val_loss", patience=1000, restore_best_weights=True)
    history = model.fit(
        batches, validation_data=validation_batches, epochs=epochs, verbose=0, shuffle=False,
        callbacks=run.callbacks(name, keep_best, data=batches),
    )  # fmt: skip
    print(
        f"{name}: {history.seconds:.0f} s, best after epoch {keep_best.best_epoch + 1} of {epochs}"
    )
    return model, history.history


# %%
models, histories = {}, {}
models["dense"], histories["dense"] = train_network(
    make_dense,
    "dense",
    plain_train,
    validation_batches,
    run.scale(quick=6, standard=12, full=30),
    peak=5e-4,
)

# %%
epochs = run.scale(quick=9, standard=12, full=60)
models["cnn"], histories["cnn"] = train_network(
    make_cnn, "cnn", plain_train, validation_batches, epochs, peak=1.5e-3
)

# %%
models["cnn_augmented"], histories["cnn_augmented"] = train_network(
    make_cnn, "cnn_augmented", augmented_train, validation_batches, epochs, peak=1.5e-3
)

# %% [markdown]
# ### 3.3 Show the results

# %%
figures.curves(
    histories, ["accuracy", "val_accuracy"],
    labels={"accuracy": "accuracy while training", "val_accuracy": "validation accuracy"},
    caption="Accuracy while training (left) and on validation images (right), epoch by epoch.",
)  # fmt: skip

# %% [markdown]
# The left panel is measured with dropout on, while the weights still change, and for `cnn_augmented` on altered images, so
# it is no measure of overfitting; the table below is.

# %%
rows = {}
for name, model in models.items():
    _, on_train = model.evaluate(still_train, verbose=0)
    _, on_test = model.evaluate(test_batches, verbose=0)
    rows[name] = {"training": on_train, "test": on_test, "gap": on_train - on_test}
    run.record(**{f"accuracy_{name}": on_test, f"gap_{name}": on_train - on_test})
run.record(
    cnn_minus_dense=rows["cnn"]["test"] - rows["dense"]["test"],
    gap_closed=rows["cnn"]["gap"] - rows["cnn_augmented"]["gap"],
)
pd.DataFrame.from_dict(rows, orient="index").round(4)

# %% [markdown]
# **What happened, and why.** Compare the column *test*. A dense layer has a weight of its own for every
# pixel, so what it learns at one place is of no use at another; a CNN uses each kernel everywhere, and
# needs fewer parameters. On the whole data set this is the likely main reason; the 2,160 images of `quick` are
# too few to show its full size. Then compare the column *gap*: augmentation hardly ever shows the
# network the same image twice, so it is harder to learn by heart. Each row is **one** training: a
# difference of a point or two may be luck.
#
# > **Note on the book.** Its summary calls the dense network Model-3; it is Model-1.
#
# Which classes are hard, and what are animals taken for?

# %%
labels = np.concatenate([y.numpy().argmax(axis=1) for _, y in test_batches])
predicted = models["cnn_augmented"].predict(test_batches, verbose=0).argmax(axis=1)
matrix = tf.math.confusion_matrix(labels, predicted, num_classes=10).numpy()
figures.confusion(
    matrix,
    classes,
    "Test images by true class (row) and predicted class (column); the darker, the larger the share.",
)

# %%
per_class = pd.Series(matrix.diagonal() / matrix.sum(axis=1), index=classes).sort_values()
figure, (panel,) = figures.axes(width=6, height=2.8)
panel.bar(per_class.index, per_class, color=figures.COLOURS[0])
panel.set(xlabel="class", ylabel="share recognised", ylim=(0, 1))
panel.tick_params(axis="x", rotation=30)
figures.show(figure, "Share of each class recognised, from worst to best.")

# %% [markdown]
# ### 3.4 Look inside
#
# A convolution's output is a stack of *feature maps*, one for each kernel. One output of the first
# convolution sees 3 × 3 pixels of the image; of the five, 3, 8, 12, 16 and 20 pixels square (count it).
# So the first maps can show only edges and spots; later ones are coarser and can answer to larger
# patterns. Each map is scaled to its own maximum; black: nothing found.

# %%
model = models["cnn_augmented"]
convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
inside = keras.Model(model.inputs, [layer.output for layer in convolutions])
picture, _ = next(iter(test_batches.unbatch().batch(1)))
maps = [np.asarray(m[0, :, :, :7], "float32") for m in inside(picture)]
tiles, titles = [], []
for depth, stack in enumerate(maps, start=1):
    tiles += [
        picture[0],
        *(np.repeat(m[:, :, None] / (m.max() + 1e-6), 3, axis=2) for m in np.moveaxis(stack, 2, 0)),
    ]
    titles += [f"conv {depth}", *[""] * 7]
figures.images(
    tiles, titles, "One test image and seven feature maps of each of the five convolutions."
)

# %% [markdown]
# TensorBoard shows the curves of all three while they train:

# %%
run.tensorboard()

# %% [markdown]
# ## 4. Results
#
# `accuracy` is the share of test images classified correctly, `gap` training minus test accuracy. The
# book trained 100 epochs at a constant rate, with its own augmentation, and kept the best validation
# accuracy; ours is the recipe of 3.2. The numbers of `quick` come from a small sample and cannot be
# compared with the book's. What has no number of the book is ours.

# %%
run.table()

# %% [markdown]
# ## 5. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · Output size


# %% nbgrader={"grade": false, "grade_id": "output_size", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def output_size(size, kernel_size, stride, padding):
    """Return the height of a convolution's output; `padding` is "same" or "valid"."""
    ### BEGIN SOLUTION
    span = size if padding == "same" else size - kernel_size + 1
    return -(-span // stride)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "output_size_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(output_size) as check:
    check(output_size(32, 3, 1, "same"), 32, '"same" with stride 1 keeps the size')
    check(
        output_size(32, 3, 1, "valid"), 30, '"valid": the kernel must fit inside, I − K + 1 places'
    )
    check(output_size(33, 3, 4, "same"), 9, "divide by the stride and round up, also for same")
    check(output_size(32, 3, 2, "same"), 16, "where the division comes out even, nothing is added")
    check(output_size(32, 7, 4, "valid"), 7, "divide by the stride and round up, also for valid")

# %% [markdown]
# ### Exercise 2 · Convolution with loops
#
# Slide a kernel over one channel (`valid`, stride 1). Deep-learning libraries do not turn the
# kernel round first, and neither should you.


# %% nbgrader={"grade": false, "grade_id": "convolve", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def convolve(image, kernel):
    """Return the valid convolution of (height, width) with a (k, k) kernel."""
    ### BEGIN SOLUTION
    k = len(kernel)
    height, width = image.shape[0] - k + 1, image.shape[1] - k + 1
    output = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            output[row, column] = (image[row : row + k, column : column + k] * kernel).sum()
    return output
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "convolve_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(convolve) as check:
    picture = np.arange(20.0).reshape(4, 5) ** 2
    pick = np.zeros((3, 3))
    pick[0, 2] = 1.0
    answer = convolve(picture, pick)
    check(
        None if answer is None else np.shape(answer),
        (2, 3),
        "the output has I − K + 1 rows and columns",
    )
    check(answer, picture[:2, 2:], "this kernel picks the upper right pixel: do not flip it")
    top, bottom = picture[:-1], picture[1:]
    right = top[:, :-1] - 2 * top[:, 1:] + 3 * bottom[:, :-1] - 4 * bottom[:, 1:]
    hint = "sum over the whole patch, each pixel times its own weight; no mean"
    check(convolve(picture, np.array([[1.0, -2.0], [3.0, -4.0]])), right, hint)

# %% [markdown]
# ### Exercise 3 · Softmax and cross-entropy
#
# Large inputs must not overflow: softmax stays the same when the same number is subtracted from all $z_i$.


# %% nbgrader={"grade": false, "grade_id": "cross_entropy", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def cross_entropy(z, label):
    """Return −ln softmax(z)[label] for one example; z has shape (classes,)."""
    ### BEGIN SOLUTION
    z = z - z.max()
    return np.log(np.exp(z).sum()) - z[label]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "cross_entropy_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(cross_entropy) as check:
    check(
        cross_entropy(np.zeros(10), 3),
        np.log(10),
        "no opinion on ten classes costs ln 10 (natural log)",
    )
    small, large = np.array([1.0, 3.0, -3.0]), np.array([1000.0, 999.0])
    check(cross_entropy(small, 0), 2.129109, "minus the log of the true class's softmax")
    check(cross_entropy(large, 1), 1.313262, "subtract the largest z before exp, or it overflows")

# %% [markdown]
# **Try this, too:** train the CNN with the book's own augmentation (`parse_aug_fn` without
# `augment=`). How many epochs does it need to overtake the CNN trained on unaltered images?
#
# ## 6. What to remember
#
# - A convolution is one small set of weights used at every place: that is why it needs fewer.
# - Output size, parameters and cost of a layer can be computed before anything is built.
# - Softmax and cross-entropy belong together; the logarithm is the natural one.
# - Augmentation must turn possible photos into possible photos. It narrows the gap between training
#   and test; it does not make training itself easier.
# - Choose by validation; the test images only report.
#
# **Read on.** LeCun et al., *Gradient-Based Learning Applied to Document Recognition*, 1998 ·
# Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009 · Smith, *A Disciplined
# Approach to Neural Network Hyper-Parameters*, 2018 (arXiv:1803.09820) · He et al., *Deep Residual
# Learning for Image Recognition*, 2016 (arXiv:1512.03385) · Müller, Kornblith and Hinton, *When Does Label Smoothing Help?*, 2019 (arXiv:1906.02629).

# %%
run.check()
