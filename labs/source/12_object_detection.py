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
# # Lab 12 · Object detection: YOLO-v3 from its boxes to its mAP
#
# After this lab you can
#
# - measure how well two boxes agree, thin out a heap of boxes, and compute the average precision of a
#   detector;
# - say what each detector from R-CNN to YOLO-v3 changed, and how many places it looks at;
# - build Darknet-53 and YOLO-v3 to the last parameter, and read and write the weight file of their authors;
# - write the loss of a detector, and test it before you train for an hour;
# - train a detector, choose its best epoch, find out what it misses, and use it on a picture of your own.
#
# **Chapter 12** of the book. **Needs** labs 4, 6, 8 and 9, and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import backbones, data, figures, paths, schedules
from labkit.boxes import iou
from preprocessing import color, flip_objects, jitter_objects, letterbox, object_batches, on_images, unletterbox_boxes  # fmt: skip
import keras, numpy as np, pandas as pd, tensorflow as tf, tensorflow_datasets as tfds

run = labkit.start("12_object_detection")

# %% [markdown]
# ## 1. Boxes
#
# A classifier says *what* is on a picture. A *detector* says what is *where*: for each object a class and a
# box. (A segmentation goes on and says it for each pixel.) People write the same box in many ways. Ours is
# $(x_1, y_1, x_2, y_2)$, the upper left and the lower right corner, as shares of the picture's width and
# height: the box stays right when the picture is scaled.


# %% tags=["definition"]
import collections, contextlib, functools, hashlib, inspect, itertools, os, time
from pathlib import Path

import PIL.Image, PIL.ImageOps
from keras import layers
from labkit.boxes import (
    ANCHORS, STRIDES, anchor_kmeans, assign_targets, average_precision, average_precisions, box_area,
    centres_to_corners, corners_to_centres, corners_to_xywh, decode_boxes, encode_boxes,
    judge_detections, match_detections, non_max_suppression, pairwise_iou, precision_recall,
    select_detections, size_iou, swap_xy,
)  # fmt: skip

# %% tags=["nbval-check-output"]
box = np.array([0.25, 0.2, 0.75, 0.6], "float32")  # on a picture 640 wide and 480 high
print("corners, in pixels         ", (box * [640, 480, 640, 480]).round())
print("the same, relative         ", box)
print("centre, width and height   ", corners_to_centres(box).numpy().round(2))
print("COCO: corner, width, height", corners_to_xywh(box).numpy().round(2))
print("TensorFlow: y before x     ", swap_xy(box).numpy())

# %% [markdown]
# How well do two boxes agree? By the area that they share, measured against the area that they cover
# together, the *intersection over union* (IoU):
#
# $$\operatorname{IoU}(A, B) = \frac{|A \cap B|}{|A \cup B|} = \frac{|A \cap B|}{|A| + |B| - |A \cap B|}.$$
#
# **Predict first:** a square is 4 wide. Another square of the same size lies 2 to the right: they share
# half of each. What is their IoU?

# %% tags=["nbval-check-output"]
square = [0.0, 0.0, 4.0, 4.0]
others = {
    "the same": [0, 0, 4, 4], "2 to the right": [2, 0, 6, 4], "in the middle, half the size": [1, 1, 3, 3],
    "side by side": [4, 0, 8, 4], "far away": [7, 9, 11, 13],
}  # fmt: skip
for name, overlap in zip(others, iou(square, np.array(list(others.values()), "float32"))):
    print(f"{name:28} {overlap:.3f}")

# %%
shifts = np.linspace(0, 1, 101)
moved = np.stack([shifts, 0 * shifts, 1 + shifts, 1 + 0 * shifts], axis=1)
figure, (panel,) = figures.axes(width=4.5, height=2.6)
panel.plot(100 * shifts, iou([0.0, 0.0, 1.0, 1.0], moved))
panel.axhline(0.5, color="grey", linestyle=":")
panel.set(xlabel="shift (% of the width)", ylabel="IoU")
figures.show(figure, "IoU of a box and a shifted copy: at a third of the width it is down to 0.5.")

# %% [markdown]
# (`keras.metrics.MeanIoU` is something else: it compares maps with a class for each pixel.)
#
# A common rule calls a detection *right* if its class is right and its IoU with the object is 0.5 or more.
# As the curve shows, this is generous; 0.9 is strict.
#
# **Too many boxes.** Every detector proposes many boxes for one object, each with a *score*: how sure
# it is. *Non-maximum suppression* keeps one
# of each heap:
#
# 1. drop all boxes with a low score;
# 2. sort the others by their score;
# 3. keep the first of the list;
# 4. drop from the list those that overlap with it by more than a threshold;
# 5. go on with 3 until the list is empty.
#
# Each class is done on its own: a rider and a horse share most of their boxes.

# %% tags=["nbval-check-output"]
heap = np.array([
    [10, 10, 50, 50], [12, 8, 52, 48], [30, 10, 70, 50], [60, 60, 90, 90], [62, 62, 90, 92], [0, 0, 20, 20],
], "float32")  # fmt: skip
scores = np.array([0.90, 0.95, 0.70, 0.60, 0.80, 0.03], "float32")
for threshold in (0.2, 0.5, 0.95):
    kept = non_max_suppression(heap, scores, iou_threshold=threshold, score_threshold=0.05)
    print(f"threshold {threshold:4}: keep boxes {kept.tolist()}")

# %% [markdown]
# With a low threshold, neighbours fall victim to each other (box 2 is perhaps another object); with a high
# one, an object is reported twice.
#
# ## 2. From R-CNN to RetinaNet
#
# ### 2.1 First propose, then classify
#
# **R-CNN** (2014) lets an older method, *selective search*, propose about 2,000 regions, cuts out each,
# scales it, and sends it through a classifier: 2,000 passes for one picture.
#
# **Fast R-CNN** (2015) sends the picture through the network once. A region is then cut out of the *feature
# map*. The head of the network needs maps of one size, so *RoI pooling* (of a *region of interest*) divides
# the region into a fixed grid of sections, here 2 × 2, and keeps the largest number of each. Where the division does
# not come out even, sections differ by a cell.


# %% tags=["nbval-check-output"]
def roi_pool(feature_map, region, size=2):
    """Return the maxima of size × size sections of a region (x1, y1, x2, y2), given in cells."""
    x1, y1, x2, y2 = region
    rows, columns = (np.array_split(np.arange(*ends), size) for ends in ((y1, y2), (x1, x2)))
    return np.array([[feature_map[np.ix_(r, c)].max() for c in columns] for r in rows])


feature_map = np.arange(64).reshape(8, 8) * 37 % 100
print(feature_map[3:8, :7], "<- a region 7 wide and 5 high")
print(
    roi_pool(feature_map, (0, 3, 7, 8)),
    "<- its pooled form, from sections 4 and 3 wide, 3 and 2 high",
)

# %% [markdown]
# **Faster R-CNN** (2015) lets a small network propose the regions, too: the *region proposal network*
# (RPN). At every cell of the map it looks at $k = 9$ *anchors*, boxes of three sizes and three shapes, and
# says for each whether there is something (2 numbers) and how the anchor must be moved and stretched to fit
# (4 numbers). With $x, y$ the centre, $w, h$ the size, and $a$ for the anchor:
#
# $$t_x = \frac{x - x_a}{w_a}, \quad t_y = \frac{y - y_a}{h_a}, \quad t_w = \ln \frac{w}{w_a}, \quad t_h = \ln \frac{h}{h_a}.$$
#
# **Before you run the cell:** an anchor is 128 wide and 64 high. The object's centre is 16 to the right of
# the anchor's and 8 above it; it is a quarter wider and a quarter less high. What are the four numbers?

# %% tags=["nbval-check-output"]
anchor, target = np.array([100.0, 100, 128, 64]), np.array([116.0, 92, 160, 48])
t = np.concatenate([(target[:2] - anchor[:2]) / anchor[2:], np.log(target[2:] / anchor[2:])])
print("t", t.round(4))
back = np.concatenate([anchor[:2] + t[:2] * anchor[2:], anchor[2:] * np.exp(t[2:])])
print("and back:", back.round(3))
print("numbers for each cell:", 4 * 9, "of boxes and", 2 * 9, "of scores")

# %% [markdown]
# The logarithm makes twice as wide and half as wide equally far from 0, and no answer of the network can
# make a width negative.
#
# ### 2.2 One look
#
# **YOLO-v1** (2016, *you only look once*) does without proposals. It lays a grid of $S \times S$ cells over
# the picture. The cell that holds the *centre* of an object is responsible for it, and answers with $B$
# boxes, each 4 numbers and a *confidence* (is there an object, and does the box fit?), and $C$ class probabilities. The
# centre is given relative to the cell,
# width and height relative to the picture.

# %% tags=["nbval-check-output"]
S, B, C = 7, 2, 20  # for the 20 classes of PASCAL VOC
print(f"output {S} × {S} × {B * 5 + C} = {S * S * (B * 5 + C):,} numbers, {S * S * B} boxes")
x, y = 300 / 448, 100 / 448  # the centre of an object in an input of 448 × 448
print(f"responsible: row {int(y * S)}, column {int(x * S)}")
print(f"inside the cell: ({x * S % 1:.4f}, {y * S % 1:.4f})")

# %% [markdown]
# A bird and a cat whose centres lie in one cell cannot both be found: the cell has one set of class
# probabilities. Later detectors give every box its own. **SSD** (2016) does so, and it looks from six maps of different
# size: the large ones, early in the network, see small objects; the small ones see large objects.

# %% tags=["nbval-check-output"]
maps = {38: 4, 19: 6, 10: 6, 5: 6, 3: 4, 1: 4}  # cells along a side -> boxes of each cell
for side, boxes_of_cell in maps.items():
    print(f"{side:2} × {side:2} cells × {boxes_of_cell} boxes = {side * side * boxes_of_cell:5,}")
ssd_boxes = sum(side * side * boxes_of_cell for side, boxes_of_cell in maps.items())
print(f"together {ssd_boxes:,} boxes")

# %% [markdown]
# ### 2.3 YOLO-v2: many small repairs
#
# Batch normalisation; a classifier fine-tuned at a higher resolution first; anchors, found by k-means among
# the boxes of the data set; training at many sizes; and two that deserve a look.
#
# > **Note on the book.** The higher resolution was 448 × 448, not 480 × 480. And new sizes were drawn every
# > 10 *batches*, as its text says, too; its script changes them every 10 epochs.
#
# **Nothing is thrown away.** To see small objects, YOLO-v2 joins an earlier map of 26 × 26 × 512 with the
# last one, 13 × 13 × 1,024. Pooling would bring it to 13 × 13 by keeping one number in four. *Space to
# depth* (the *passthrough* or *reorganisation* layer) keeps all of them: four neighbours become four
# channels.

# %% tags=["nbval-check-output"]
toy = tf.reshape(tf.range(16.0), (1, 4, 4, 1))
print("the map", toy[0, :, :, 0].numpy().astype(int).tolist())
print("max pooling", tf.nn.max_pool2d(toy, 2, 2, "VALID")[0, :, :, 0].numpy().astype(int).tolist())
print("space to depth", tf.nn.space_to_depth(toy, 2)[0].numpy().astype(int).tolist())
early, late = tf.zeros((1, 26, 26, 512)), tf.zeros((1, 13, 13, 1024))
joined = tf.concat([tf.nn.space_to_depth(early, 2), late], axis=-1)
print("early map", tf.nn.space_to_depth(early, 2).shape, "joined", joined.shape)

# %% [markdown]
# **The centre stays in its cell.** With the formula of the RPN, $t_x = 3$ moves a box by three widths of
# its anchor, into the realm of other cells. Early in training the answers are random, and such values occur.
# YOLO-v2 and v3 put a sigmoid $\sigma$ around it. With $c_x, c_y$ the cell's column and row, counted in
# cells, and $p_w, p_h$ the anchor's size:
#
# $$b_x = \sigma(t_x) + c_x, \quad b_y = \sigma(t_y) + c_y, \quad b_w = p_w e^{t_w}, \quad b_h = p_h e^{t_h}.$$
#
# > **Note on the book.** It explains $c_x, c_y$ as the upper left corner of the image. They are that of the
# > *cell*.

# %% tags=["nbval-check-output"]
anchor = np.array([[116.0, 90.0]], "float32")
for t_x in (-5.0, 0.0, 3.0):
    codes = np.zeros((1, 13, 13, 1, 4), "float32")  # what the network says, in all cells
    codes[..., :2] = 1 / (1 + np.exp(-np.array([t_x, 0.0])))
    decoded = corners_to_centres(decode_boxes(codes, anchor, (416, 416)))[0, 4, 6, 0]
    centre = decoded.numpy()[:2] * 416
    print(f"t_x = {t_x:4}: column 6 reaches from x = 192 to 224, the centre is x = {centre[0]:.1f}")

# %% [markdown]
# ### 2.4 Pyramids, and a loss for rare objects
#
# Early maps show fine detail but know little; late ones know much but are coarse. A **feature pyramid network**
# (FPN, 2017) walks down again: it doubles the size of the late map and adds it to the one before, so that
# every level of the pyramid knows much. YOLO-v3 does the same, but joins the maps where FPN adds them.
# Section 3.3 measures what it changes. (The alternatives: several sizes of the *picture*, which is slow;
# the last map alone, as YOLO-v1; the maps as they come, as SSD.)

# %% tags=["nbval-check-output"]
late, early = tf.zeros((1, 13, 13, 256)), tf.zeros((1, 26, 26, 512))
doubled = tf.repeat(tf.repeat(late, 2, axis=1), 2, axis=2)
narrowed = tf.zeros((1, 26, 26, 256))  # the early map after a 1 × 1 convolution
print("FPN adds", (doubled + narrowed).shape)
print("YOLO-v3 joins", tf.concat([doubled, early], axis=-1).shape)

# %% [markdown]
# **RetinaNet** (2017) puts such a pyramid on a ResNet, and asks why one-look detectors were less exact
# than those that propose first. Its answer: of tens of thousands of boxes a handful hold an object. Each
# of the others has a small loss, but together they drown the few. The *focal loss* turns down the loss of boxes that are
# right already. With $p_t$ the probability that the network gives to the truth:
#
# $$\operatorname{FL}(p_t) = -(1 - p_t)^\gamma \ln p_t.$$


# %% tags=["nbval-check-output"]
def focal_loss(p_t, gamma):
    """Return the focal loss; with gamma = 0 it is the cross-entropy."""
    return -((1 - p_t) ** gamma) * np.log(p_t)


for p_t in (0.8, 0.2):
    plain, focal = (focal_loss(p_t, gamma) for gamma in (0, 2))
    print(
        f"p_t = {p_t}: cross-entropy {plain:.5f}, focal {focal:.5f}, {plain / focal:.1f} times less"
    )

# %% [markdown]
# > **Note on the book.** It prints 0.32192, 0.01287, 2.32192 and 1.48603: logarithms to base 2, where the
# > formula, and all software, means the natural one. (Its formula has a factor $\alpha_t$, too, which weighs objects
# > against background; its numbers and ours leave it out.)

# %%
figure, (panel,) = figures.axes(width=5)
for gamma in (0, 1, 2, 5):
    figures.draw(panel, functools.partial(focal_loss, gamma=gamma), 0.01, 1, label=f"γ = {gamma}")
panel.set(xlabel="probability of the truth, p_t", ylabel="focal loss", ylim=(0, 4))
panel.legend()
figures.show(figure, "Focal loss: the larger γ, the less the boxes count that are right already.")

# %% [markdown]
# ### 2.5 How many places
#
# In how many boxes does each method look for an object in one picture? (Faster R-CNN with pictures of about
# 1,000 × 600 pixels: its map has a cell for each 16 pixels. YOLO-v2 has five anchors in each cell.)

# %% tags=["nbval-check-output"]
retina = 9 * sum((512 // 2**level) ** 2 for level in range(3, 8))  # levels 3 to 7 of a pyramid
looks = {  # year of the conference or, for YOLO-v3, of the report
    "R-CNN": (2014.5, 2000, True), "Fast R-CNN": (2015.9, 2000, True),
    "Faster R-CNN": (2015.9, 40 * 60 * 9, True), "YOLO-v1": (2016.5, 7 * 7 * 2, False),
    "SSD": (2016.8, ssd_boxes, False), "YOLO-v2": (2017.6, 13 * 13 * 5, False),
    "RetinaNet": (2017.8, retina, False),
    "YOLO-v3": (2018.3, (13**2 + 26**2 + 52**2) * 3, False),
}  # fmt: skip
print({name: places for name, (_, places, _) in looks.items()})

# %%
figure, (panel,) = figures.axes(width=7, height=3)
for name, (year, places, proposes) in looks.items():
    panel.plot(year, places, "o" if proposes else "s", color=figures.COLOURS[0 if proposes else 1])
    panel.annotate(
        name, (year, places), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
    )
panel.set(
    xlabel="year", ylabel="boxes looked at", yscale="log", ylim=(50, 2e5), xlim=(2013.5, 2019)
)
figures.show(
    figure,
    "Boxes in one picture: propose first (circles), or one look (squares; RetinaNet at 512 pixels).",
)

# %% [markdown]
# The book's survey ends with two detectors of its authors: CFF-SSD for hands, and DSNet for fog, which removes the
# fog and detects in one network.
#
# > **Note on the book.** DSNet's loss $L_v$ is printed with the label of $M(x)$; the book sends the reader to 12.3.9 for
# > its anchors, which are explained in 12.3.3.
#
# ## 3. YOLO-v3
#
# ### 3.1 Darknet-53
#
# The body is a residual network (lab 8) of 53 convolutions, the last of which is its classifier and is left
# out here. Each *block* narrows with 1 × 1, looks with 3 × 3, and adds. Five times a convolution with
# stride 2 halves the map. There is no dense layer, so nothing asks for a certain input size, except that 32 must divide
# height and width: otherwise the enlarged maps of 3.2 would not fit those that they are joined with.
#
# `width` and `blocks` make it smaller: the same network for small data. Every convolution gets a number,
# since the weight file of the authors (section 3.6) knows no names, only an order.


# %% tags=["definition"]
def convolution(x, filters, kernel_size, name, stride=1):
    """Convolve without bias, normalise, and let a tenth of negative values pass."""
    if stride == 2:  # Darknet pads above and on the left; `same` would pad below and on the right
        x = layers.ZeroPadding2D(((1, 0), (1, 0)))(x)
    kernel = layers.Conv2D(
        filters, kernel_size, stride, padding="valid" if stride == 2 else "same",
        use_bias=False, kernel_initializer="he_normal", name=name,
    )  # fmt: skip
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(kernel(x))
    return layers.LeakyReLU(0.1)(x)


def darknet(width=1.0, blocks=(1, 2, 8, 8, 4)):
    """Return Darknet-53 without classifier: photos -> maps of 1/8, 1/16 and 1/32 of their size."""
    names = (f"conv_{number:02}" for number in itertools.count(1))
    inputs = keras.Input((None, None, 3))
    x = convolution(inputs, int(32 * width), 3, next(names))
    maps = []
    for filters, repeats in zip((64, 128, 256, 512, 1024), blocks):
        filters = int(filters * width)
        x = convolution(x, filters, 3, next(names), stride=2)
        for _ in range(repeats):
            narrow = convolution(x, filters // 2, 1, next(names))
            x = layers.Add()([x, convolution(narrow, filters, 3, next(names))])
        maps.append(x)
    return keras.Model(inputs, maps[2:], name="backbone")


# %% [markdown]
# ### 3.2 Three outputs
#
# The *neck* begins at the coarsest map: five convolutions, narrow and wide in turn, then a branch to the
# first output. What came before the branch is narrowed by a 1 × 1 convolution, enlarged, and joined with the next
# finer map, and so on. Each output has for each cell and each of three anchors 4 numbers of the box, one *objectness* (is
# there an object for this anchor here?) and $C$ classes. $t_w$ and
# $t_h$ are used as they come; all others are logits, which still go through a sigmoid.

# %%
figures.graph(
    {
        "photo": "photo\n416 × 416 × 3",
        "8": "Darknet to 1/8\n52 × 52 × 256",
        "16": "Darknet to 1/16\n26 × 26 × 512",
        "32": "Darknet to 1/32\n13 × 13 × 1,024",
        "neck 32": "five convolutions\n13 × 13 × 512",
        "neck 16": "join, five more\n26 × 26 × 256",
        "neck 8": "join, five more\n52 × 52 × 128",
        "out 32": "large objects\n13 × 13 × 3 × (5 + C)",
        "out 16": "middle-sized\n26 × 26 × 3 × (5 + C)",
        "out 8": "small objects\n52 × 52 × 3 × (5 + C)",
    },
    [
        ("photo", "8"), ("8", "16"), ("16", "32"), ("32", "neck 32"), ("neck 32", "neck 16"),
        ("16", "neck 16"), ("neck 16", "neck 8"), ("8", "neck 8"), ("neck 32", "out 32"),
        ("neck 16", "out 16"), ("neck 8", "out 8"),
    ],
    "YOLO-v3 for an input of 416 × 416: down through the body, up through the neck, three outputs.",
)  # fmt: skip

# %% [markdown]
# The model also knows its anchors and its loss, which section 3.5 writes. Keras's `fit` calls
# `compute_loss` for every batch; the three parts of the loss are metrics, so that we can watch them.


# %% tags=["definition"]
@keras.saving.register_keras_serializable("labs")
class Yolo(keras.Model):
    """A network with three outputs that knows its anchors (pixels, coarse grid first) and its loss."""

    def __init__(self, inputs, outputs, name=None, *, anchors=ANCHORS, **options):
        super().__init__(inputs, outputs, name=name, **options)
        self.anchors = np.array(anchors, "float32")
        self.parts = [keras.metrics.Mean(name=part) for part in ("box", "objectness", "classes")]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        losses = yolo_loss(y, y_pred, self.anchors, tf.shape(x)[1:3])
        for part, values in zip(self.parts, tf.unstack(losses, axis=1)):
            part.update_state(values)
        return tf.reduce_mean(tf.reduce_sum(losses, axis=1))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))], autograph=False)
    def look(self, images):
        """Return the three outputs for images of any size that 32 divides; traced only once."""
        return self(images, training=False)

    def get_config(self):
        return super().get_config() | {"anchors": self.anchors.tolist()}


@keras.saving.register_keras_serializable("labs")
class ByAnchor(layers.Layer):
    """Give the anchors an axis: (batch, rows, columns, 3 n) -> (batch, rows, columns, 3, n)."""

    def call(self, x):
        shape = tf.shape(x)
        return tf.reshape(x, [shape[0], shape[1], shape[2], 3, x.shape[-1] // 3])

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3, shape[-1] // 3)


# %% [markdown]
# A new network says "object" with probability ½ in all of its thousands of boxes, and would spend its first
# steps on unlearning that. RetinaNet's trick: the bias of the objectness begins at $\ln(0.01 / 0.99)
# \approx -4.6$, that is at 1 %.


# %% tags=["definition"]
def make_yolo(backbone, n_classes, anchors=ANCHORS, width=1.0):
    """Return YOLO-v3 on a backbone with maps of 1/8, 1/16 and 1/32: photos in [0, 1] -> 3 outputs.

    An output is (batch, rows, columns, 3, 5 + n_classes), without sigmoids, the coarse grid first.
    """
    names = (f"conv_{number}" for number in itertools.count(53))
    inputs = keras.Input((None, None, 3))
    outputs, coarse = [], None
    for filters, x in zip((512, 256, 128), reversed(backbone(inputs))):
        filters = int(filters * width)
        if outputs:
            coarse = convolution(coarse, filters, 1, next(names))
            x = layers.Concatenate()([layers.UpSampling2D()(coarse), x])
        for i in range(5):  # narrow and wide in turn
            x = convolution(x, filters * (1 + i % 2), 1 + 2 * (i % 2), next(names))
        coarse = x
        x = convolution(x, 2 * filters, 3, next(names))
        last = layers.Conv2D(3 * (5 + n_classes), 1, dtype="float32", name=next(names))
        outputs.append(ByAnchor(dtype="float32")(last(x)))
        last.bias.assign(np.tile([0.0, 0, 0, 0, -4.6, *[0] * n_classes], 3))
    return Yolo(inputs, outputs, name="yolo", anchors=anchors)


# %% tags=["nbval-check-output"]
published = make_yolo(darknet(), 80)
backbone = published.get_layer("backbone")
for model in (backbone, published, make_yolo(backbone, 20)):
    parts = [model, *(layer for layer in model.layers if isinstance(layer, keras.Model))]
    n = sum(isinstance(layer, layers.Conv2D) for part in parts for layer in part.layers)
    print(f"{model.name:8} {n} convolutions, {model.count_params():,} parameters")
for size in ((416, 416), (320, 608)):
    outputs = published.compute_output_spec(keras.KerasTensor((1, *size, 3)))
    n_boxes = sum(int(np.prod(output.shape[1:4])) for output in outputs)
    print(size, [output.shape[1:] for output in outputs], f"{n_boxes:,} boxes")

# %% [markdown]
# > **Note on the book.** It names its last layers by a counter of the whole program: a second network in
# > the same program gets other names, and its weights, loaded by name, find no layer.
#
# ### 3.3 What an output can see
#
# An output should see more than the object itself. The *receptive field* follows from kernels and strides
# alone: a kernel of $k$ adds $k - 1$ steps, and a step is as long as the product of all strides before.


# %% tags=["definition"]
def receptive_field(steps):
    """Return how many pixels wide one output sees; `steps` are pairs (kernel size, stride)."""
    field, step = 1, 1
    for kernel_size, stride in steps:
        field += (kernel_size - 1) * step
        step *= stride
    return field


def darknet_steps(blocks, n_stages):
    """Return (kernel size, stride) of the convolutions in the first stages of Darknet."""
    stages = [[(3, 2), *[(1, 1), (3, 1)] * repeats] for repeats in blocks[:n_stages]]
    return [(3, 1), *(step for stage in stages for step in stage)]


# %% tags=["nbval-check-output"]
for n_stages, stride, suited in zip((3, 4, 5), (8, 16, 32), ANCHORS[::-1].astype(int).tolist()):
    field = receptive_field(darknet_steps((1, 2, 8, 8, 4), n_stages))
    print(f"stride {stride:2}: sees {field} pixels, its anchors are {suited}")

# %% [markdown]
# The fine grid has the small anchors, the coarse grid the large ones. Is the arithmetic right? Ask a small
# Darknet: how many pixels does the gradient of the middle cell reach? **Predict first:** and what
# will the neck change for the finest output?


# %%
def measured_field(network, number, side=512):
    """Return how many columns of the input the middle cell of a network's output depends on."""
    image = tf.random.stateless_uniform((1, side, side, 3), seed=(12, 1))
    with tf.GradientTape() as tape:
        tape.watch(image)
        output = network(image)[number]
        middle = output.shape[1] // 2
        value = tf.reduce_sum(output[0, middle, middle])
    reached = tf.reduce_any(tape.gradient(value, image)[0] != 0, axis=[0, 2])
    return int(tf.reduce_sum(tf.cast(reached, tf.int32)))


# %% tags=["nbval-check-output"]
small = darknet(width=1 / 16, blocks=(1, 1, 1, 1, 1))
for number, n_stages in enumerate((3, 4, 5)):
    field = receptive_field(darknet_steps((1, 1, 1, 1, 1), n_stages))
    print(f"map {number}: computed {field}, measured {measured_field(small, number)}")
with_neck = make_yolo(small, 1, width=1 / 16)
print("finest output, after the neck: measured", measured_field(with_neck, 2))

# %% [markdown]
# Through the neck the finest output learns what the coarsest map has seen. That is what a pyramid is for.
#
# ### 3.4 Which box is responsible
#
# Each object goes to *one* place: to the anchor that is most like it in size, of all nine (the largest IoU
# when both have the same centre), and to the cell that holds its centre. **Before you run the cell:** objects of 60 × 45, 20
# × 25 and 300 × 250 pixels, all
# with their centre at (200, 150) of 416 × 416. To which grid does each go, and to which row and column?

# %% tags=["nbval-check-output"]
centres = np.array([[[200, 150, 60, 45], [200, 150, 20, 25], [200, 150, 300, 250]]], "float32")
truth = centres_to_corners(centres) / 416
targets = assign_targets(truth, [[0, 1, 2]], ANCHORS, (416, 416))
for stride, target, suited in zip(STRIDES, targets, ANCHORS):
    for _, row, column, place in np.argwhere(target[..., 4] == 1):
        wanted, found = centres[0, int(target[0, row, column, place, 5]), 2:], suited[place]
        print(f"{wanted} -> stride {stride:2}, row {row}, column {column}, anchor {found}")
codes = [encode_boxes(t[..., :4], a, (416, 416)) for t, a in zip(targets, ANCHORS)]
back = [decode_boxes(c, a, (416, 416)) for c, a in zip(codes, ANCHORS)]
errors = [tf.reduce_max(t[..., 4:5] * tf.abs(b - t[..., :4])) for t, b in zip(targets, back)]
print("decode(encode(box)) = box:", bool(max(errors) < 1e-5))

# %% [markdown]
# Two objects that want the same cell *and* anchor cannot both be kept: training loses one of them. This is
# how the choice is made, for all objects of all images at once:

# %%
figures.source(assign_targets)

# %% [markdown]
# > **Note on the book.** Its code scales $x$ by the number of rows and $y$ by the number of columns, and
# > boxes by (height, width) in the order (x, y). For square inputs nobody notices. Ours takes any input
# > that 32 divides; the pictures of blood cells below are wider than high.
#
# ### 3.5 The loss
#
# At a place that is responsible for an object, the loss compares the box, the objectness and the classes;
# everywhere else only the objectness counts, which should be 0. With BCE the binary cross-entropy, the loss of *one
# image* is the following sum; a batch has the mean of its images.
#
# $$L = \sum_{\text{objects}} \Big[ (2 - wh) \big\lVert b - \hat b \big\rVert^2 + \operatorname{BCE}(1, \hat o) + \sum_{c} \operatorname{BCE}(p_c, \hat p_c) \Big] + \sum_{\text{no object, IoU} < 0.5} \operatorname{BCE}(0, \hat o).$$
#
# - $b$ is (place in the cell, $t_w$, $t_h$). An error of a pixel is worse for a small box, so it weighs
#   more: $w, h$ are shares of the picture.
# - The classes are separate questions, each with its own binary cross-entropy: a box may be a woman and a
#   person.
# - The last sum leaves out *predicted* boxes that overlap well with an object but are not responsible for it. They are
#   not wrong, only superfluous, and suppression will remove them.
#
# > **Note on the book.** Its formulas have a factor $\lambda_\text{coord}$ and a binary cross-entropy for
# > each class; its code has $2 - wh$ instead of the factor, and a cross-entropy over classes that treats sigmoids as if they
# > were the
# > probabilities of a softmax. Our classes follow the paper. $2 - wh$ comes from the program of YOLO's authors, and so does
# > comparing *predicted* boxes with the objects (the paper compares anchors). And the book's code compares the boxes of an
# > image with the objects of *all*
# > images in the batch: what is ignored then depends on the neighbours.


# %% tags=["definition"]
IGNORE = 0.5  # boxes that overlap more than this with an object are not called wrong


def split_output(output):
    """Return an output's box codes (x and y after the sigmoid), objectness and class logits."""
    n_classes = output.shape[-1] - 5
    xy, wh, objectness, classes = tf.split(output, [2, 2, 1, n_classes], axis=-1)
    return tf.concat([tf.sigmoid(xy), wh], axis=-1), objectness[..., 0], classes


def best_overlap(boxes, truth):
    """Return the largest IoU of each box of an output with an object of the same image."""
    flat = tf.reshape(boxes, [tf.shape(boxes)[0], -1, 4])
    return tf.reshape(tf.reduce_max(pairwise_iou(flat, truth), axis=-1), tf.shape(boxes)[:-1])


# %% tags=["definition"]
def scale_loss(output, target, truth, anchors, size):
    """Return the loss of one output, for each image its three parts: (batch, 3)."""
    codes, objectness, classes = split_output(output)
    box, has_object = target[..., :4], target[..., 4]
    wanted = encode_boxes(box, anchors, size)
    hot = tf.one_hot(tf.cast(target[..., 5], tf.int32), classes.shape[-1])
    overlap = tf.stop_gradient(best_overlap(decode_boxes(codes, anchors, size), truth))
    judged = tf.maximum(has_object, tf.cast(overlap < IGNORE, tf.float32))
    entropy = tf.nn.sigmoid_cross_entropy_with_logits
    parts = [
        has_object * (2 - box_area(box)) * tf.reduce_sum(tf.square(wanted - codes), axis=-1),
        judged * entropy(has_object, objectness),
        has_object * tf.reduce_sum(entropy(hot, classes), axis=-1),
    ]
    return tf.stack([tf.reduce_sum(part, axis=[1, 2, 3]) for part in parts], axis=1)


def yolo_loss(objects, outputs, anchors, size):
    """Return the loss of all outputs, for each image its parts box, objectness, classes."""
    truth = objects["boxes"]
    targets = assign_targets(truth, objects["labels"], anchors, size)
    return tf.add_n(
        [scale_loss(o, t, truth, a, size) for o, t, a in zip(outputs, targets, anchors)]
    )


# %% [markdown]
# A wrong loss raises no error (lab 6). So let us build a *perfect* answer, from the targets themselves, and
# demand that its loss is about 0; the same for a picture without objects, whose gradients must be finite;
# and that an image has the same loss alone as in a batch. (This does not find every mistake: a loss that is 0 for *any*
# answer would pass. So the tests of the course also spoil one number of a perfect answer, and look whether the right part
# of the loss rises, and no other.)


# %% tags=["definition"]
def perfect_outputs(objects, anchors, size, n_classes, certain=20.0):
    """Return the outputs of a network that knows the objects; `certain` is the size of its logits."""
    outputs = []
    targets = assign_targets(objects["boxes"], objects["labels"], anchors, size)
    for target, scale_anchors in zip(targets, anchors):
        codes = encode_boxes(target[..., :4], scale_anchors, size)
        xy = tf.clip_by_value(codes[..., :2], 1e-6, 1 - 1e-6)
        hot = tf.one_hot(tf.cast(target[..., 5], tf.int32), n_classes)
        truth = tf.concat([target[..., 4:5], hot], axis=-1)
        logits = [tf.math.log(xy / (1 - xy)), codes[..., 2:], certain * (2 * truth - 1)]
        outputs.append(tf.concat(logits, axis=-1))
    return outputs


# %% tags=["nbval-check-output"]
size = (64, 96)
objects = {
    "boxes": tf.constant([
        [[0.1, 0.2, 0.4, 0.9], [0.5, 0.5, 0.6, 0.7]], [[0.3, 0.1, 0.9, 0.6], [0, 0, 0, 0]], [[0.0] * 4] * 2,
    ]),
    "labels": tf.constant([[0, 2], [1, -1], [-1, -1]], tf.int64),  # -1: no object
}  # fmt: skip
perfect = perfect_outputs(objects, ANCHORS, size, n_classes=3)
print("perfect: below 0.001", np.all(yolo_loss(objects, perfect, ANCHORS, size) < 1e-3))

outputs = [tf.random.stateless_normal(output.shape, seed=(12, 2)) for output in perfect]
with tf.GradientTape() as tape:
    tape.watch(outputs)
    losses = yolo_loss(objects, outputs, ANCHORS, size)
gradients = tape.gradient(losses, outputs)
print("gradients are finite:", all(np.isfinite(gradient).all() for gradient in gradients))
print(
    "empty picture: no loss of boxes, none of classes",
    losses[2, 0].numpy() == losses[2, 2].numpy() == 0,
)
for image in range(3):
    chosen = slice(image, image + 1)
    own = {name: values[chosen] for name, values in objects.items()}
    alone = yolo_loss(own, [output[chosen] for output in outputs], ANCHORS, size)
    print(f"image {image}: the same alone", np.allclose(alone, losses[chosen], rtol=1e-4))

# %% [markdown]
# ### 3.6 Further · The weight file of the authors
#
# Darknet, the program of YOLO's authors, keeps weights in a plain file: a header of three integers
# (version) and the number of images seen in training, then nothing but numbers in float32, convolution by
# convolution, in the order of the network:
#
# - with normalisation: shift β, scale γ, mean, variance; without: the biases;
# - then the kernel, in the order (out, in, height, width). Keras wants (height, width, in, out).
#
# A wrong order raises no error: every layer gets numbers, and the network says nonsense. So we write the file of a
# known network and read it into another one. But a reader and a writer that make the same mistake understand each
# other. So we also read a file of the numbers 0, 1, 2, …, in which each must arrive at its place. **Before you run the
# cell:** the first convolution has two kernels. Where are its numbers from 0 to 9?


# %% tags=["definition"]
def conv_layers(network):
    """Return (convolution, normalisation or None) of a network in the order of their numbers."""
    parts = [network, *(layer for layer in network.layers if isinstance(layer, keras.Model))]
    named = {layer.name: layer for part in parts for layer in part.layers}
    numbered = sorted(name for name in named if name.startswith("conv_") and name[5:].isdigit())
    return [(named[name], named.get(f"{name}_norm")) for name in numbered]


def file_order(network):
    """Yield the variables of a network in the order of a Darknet weight file."""
    for layer, norm in conv_layers(network):
        if norm is None:
            yield layer.bias
        else:
            yield from (norm.beta, norm.gamma, norm.moving_mean, norm.moving_variance)
        yield layer.kernel


def read_darknet(network, file):
    """Give a network the weights of a Darknet file; return how many images it had seen."""
    content = Path(file).read_bytes()
    major, minor, _ = np.frombuffer(content, "<i4", 3)
    wide = 10 * major + minor >= 2  # since version 0.2 the number of images has 8 bytes
    seen = np.frombuffer(content, "<i8" if wide else "<i4", 1, offset=12)[0]
    numbers = np.frombuffer(content[20 if wide else 16 :], "<f4")
    sizes = [int(np.prod(variable.shape)) for variable in file_order(network)]
    if len(numbers) != sum(sizes):
        raise ValueError(f"{file}: {len(numbers):,} weights, the network needs {sum(sizes):,}")
    for variable, values in zip(file_order(network), np.split(numbers, np.cumsum(sizes)[:-1])):
        if len(variable.shape) == 4:  # a kernel: (out, in, height, width) in the file
            values = values.reshape([variable.shape[axis] for axis in (3, 2, 0, 1)])
            values = values.transpose(2, 3, 1, 0)
        variable.assign(values)
    return int(seen)


# %% tags=["definition"]
def write_darknet(network, file, seen=0):
    """Write the weights of a network as a Darknet file of version 0.2."""
    numbers = [variable.numpy() for variable in file_order(network)]
    rows = [values.transpose(3, 2, 0, 1) if values.ndim == 4 else values for values in numbers]
    header = np.array([0, 2, 0], "<i4").tobytes() + np.array([seen], "<i8").tobytes()
    body = np.concatenate([np.ravel(values) for values in rows]).astype("<f4").tobytes()
    paths.write(Path(file), header + body)


# %% tags=["nbval-check-output"]
one, other = (make_yolo(darknet(1 / 16, (1, 1, 1, 1, 1)), 3, width=1 / 16) for _ in range(2))
file = run.log_dir / "small.weights"
write_darknet(one, file, seen=1234)
print(f"{one.count_params():,} parameters, {file.stat().st_size:,} bytes")
print("read: seen", read_darknet(other, file))
same = [np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights())]
print(f"{sum(same)} of {len(same)} arrays are equal, bit for bit")
header = np.array([0, 2, 0, 0, 0], "<i4").tobytes()
paths.write(file, header + np.arange(one.count_params(), dtype="<f4").tobytes())
read_darknet(other, file)
conv, norm = conv_layers(other)[0]
for name in ("beta", "gamma", "moving_mean", "moving_variance"):
    print(f"{name:15}", getattr(norm, name).numpy())
print("first row of the first kernel, red:", conv.kernel[0, :, 0, 0].numpy())
print(f"YOLO-v3 for 80 classes: {published.count_params() * 4 + 20:,} bytes")

# %% [markdown]
# The file of the authors, `yolov3.weights`, has 248 MB and does not come with the course. If you have it, this cell
# reads it into `published`, which then is the network that they trained on COCO.


# %% tags=["definition"]
OFFICIAL = "yolov3.weights"
OFFICIAL_SHA256 = "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297"


def official_file():
    """Return the authors' weight file where it is here, else None; `ValueError` if it is damaged."""
    folders = [paths.home() / "cache", *filter(None, [os.environ.get("LABS_MIRROR")])]
    places = (Path(folder, "weights", OFFICIAL) for folder in folders)
    file = next((place for place in places if place.exists()), None)
    if file and hashlib.sha256(file.read_bytes()).hexdigest() != OFFICIAL_SHA256:
        raise ValueError(f"{OFFICIAL} is damaged: its SHA-256 is not {OFFICIAL_SHA256}")
    return file


# %%
coco_file = official_file()
if coco_file:
    print(f"{read_darknet(published, coco_file):,}", "images seen in training, each many times")
else:
    print(f"To have it: get https://pjreddie.com/media/files/{OFFICIAL}")
    print(f"(SHA-256 {OFFICIAL_SHA256})")
    print(f"and put it at cache/weights/{OFFICIAL} in the work folder (LABS_HOME, or else work/).")

# %% [markdown]
# ## 4. How good is a detector?
#
# Sort all detections of a class, from all pictures, by their score, and go down the list. After each,
# *precision* is the share of right ones so far, and *recall* the share of the objects found so far. An
# object counts once: a second detection of it is wrong. In each picture the detections choose, the best score first: each
# takes, of the objects of its class that are still free, the one with the largest IoU, if that reaches a threshold. The
# further down, the more objects are found, and
# the more detections are wrong.
#
# The curve zigzags. *Average precision* (AP) takes for each recall the best precision that is reached there
# *or later*, and averages: over the recalls 0, 0.1, …, 1 in PASCAL VOC until 2009, over 101 recalls in
# COCO, as in this lab (the example takes 11), or over all. The mean of all classes is **mAP**. `map_50` (section 5.2) calls
# a detection right from IoU 0.5 on;
# `map_50_95` is the mean over the ten thresholds 0.50, 0.55, …, 0.95, and so also asks how well the boxes
# fit.

# %% tags=["nbval-check-output"]
recall = np.linspace(0, 1, 11)
precision = np.array([0.91, 0.94, 0.96, 0.94, 0.95, 0.92, 0.80, 0.60, 0.45, 0.20, 0.10])
best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
print("best from here on", best_from_here)
print(
    f"AP {average_precision(recall, precision, points=11):.5f}, by hand {best_from_here.mean():.5f}"
)

# %%
figures.source(average_precision)

# %%
figure, (panel,) = figures.axes(width=5)
panel.plot(recall, precision, marker="o", label="precision")
panel.plot(recall, best_from_here, marker="x", label="best from here on")
panel.axhline(best_from_here.mean(), color="grey", linestyle=":", label="AP")
panel.set(xlabel="recall", ylabel="precision", ylim=(0, 1))
panel.legend()
figures.show(
    figure, "A precision–recall curve, its best values from each recall on, and their mean."
)

# %% [markdown]
# > **Note on the book.** It lists a program for evaluation and names mAP in its index, but prints no mAP:
# > its only result is a picture. All numbers of this lab are ours. It also chooses its best epoch by the
# > *test* images (and its first program loads the training images as test images); we choose by validation.
#
# ## 5. Experiment · A detector from data to mAP
#
# ### 5.1 Prepare the data
#
# | profile | pictures | network |
# |---|---|---|
# | `quick` | the digits 0, 1 and 2 of MNIST, scattered on textured canvases by a program: the boxes are known exactly | the bundled EfficientNet-Lite0 (lab 8) with ImageNet's weights as the backbone, YOLO's neck a quarter as wide |
# | `standard` | 364 photos of blood through a microscope, with 4,886 boxes around red cells, white cells and platelets (*BCCD*; two more boxes are empty) | the same network |
# | `full` | PASCAL VOC 2007, 20 classes, the book's data | Darknet-53 and the whole neck; from the authors' weights, if you have their file (section 3.6), else from random ones |
#
# The reason for that backbone: 205 training photos are few, and a minute is short, so we begin with a network that has
# learned to see from ImageNet. The outputs, the loss and the program are the same in all three. (In `full` we train on VOC's
# training part, 2,501 photos, and choose by its validation part; the book trains on both.)


# %% tags=["definition"]
Phase = collections.namedtuple("Phase", "epochs batch_size peak sizes")

DATA = run.scale(quick="digit_scenes", standard="bccd", full="voc/2007")
SIZE = run.scale(quick=(64, 64), standard=(288, 384), full=(416, 416))  # height, width
SIZES = run.scale(
    quick=[(64, 64)],
    standard=[(192, 256), (288, 384), (384, 512)],
    full=[(side, side) for side in range(320, 609, 32)],
)
PHASES = run.scale(
    quick=[Phase(2, 16, 2e-2, None)],
    standard=[Phase(15, 8, 2e-3, None), Phase(50, 8, 5e-4, SIZES)],
    full=[Phase(100, 32, 1e-3, None), Phase(100, 8, 1e-4, SIZES)],
)
EVERY = run.scale(quick=2, standard=5, full=5)  # epochs between two looks at the validation images
jitter = functools.partial(jitter_objects, min_visible=0.15)
SHIFT = (functools.partial(jitter, scale=(0.95, 1.05), stretch=1.05, shift=0.1),)
MOVE = (flip_objects, jitter, on_images(functools.partial(color, probability=0.5)))
AUGMENT = run.scale(quick=SHIFT, standard=MOVE, full=MOVE)
PRIVATE = run.scale(quick=False, standard=False, full=True)  # VOC's pictures may not be passed on


# %%
(train, validation, test), info = tfds.load(
    DATA, split=["train", "validation", "test"], data_dir=data.tfds_dir(DATA), with_info=True
)
classes = info.features["objects"]["label"].names
train_batches, validation_batches, test_batches = (
    object_batches(part, SIZE) for part in (train, validation, test)
)
sizes = [int(part.cardinality()) for part in (train, validation, test)]
print(dict(zip(["training", "validation", "test"], sizes)), "images")

# %% [markdown]
# A batch is a tensor of images, each fitted into one frame in its own proportions (what is left over is grey: a
# *letterbox*), and the objects in them: boxes, labels, and
# whether an object is marked as *difficult* (VOC does that; training treats such objects like all others, but when the
# detector is judged they count neither as found nor as missed). Images with fewer objects are filled up with label −1.


# %% tags=["definition"]
def one_by_one(objects):
    """Return the objects of a batch image by image: a list of dicts of arrays."""
    arrays = {name: np.asarray(values) for name, values in objects.items()}
    return [dict(zip(arrays, values)) for values in zip(*arrays.values())]


def all_boxes(batches):
    """Return the boxes, (n, 4), and the labels, (n,), of all objects of a data set."""
    images = [image for _, objects in batches for image in one_by_one(objects)]
    real = [image["labels"] >= 0 for image in images]
    return tuple(
        np.concatenate([image[name][chosen] for image, chosen in zip(images, real)])
        for name in ("boxes", "labels")
    )


def truth_marks(objects, classes):
    """Return the marks of the objects of one image, for `figures.boxes`."""
    pairs = zip(objects["boxes"], objects["labels"])
    return [figures.Mark(box, classes[label]) for box, label in pairs if label >= 0]


# %%
boxes, labels = all_boxes(train_batches)
counts = {"training": np.bincount(labels, minlength=len(classes))}
for part, batches in (("validation", validation_batches), ("test", test_batches)):
    counts[part] = np.bincount(all_boxes(batches)[1], minlength=len(classes))
pd.DataFrame(counts, index=pd.Index(classes, name="objects")).T

# %%
pictures, objects = next(iter(train_batches))
figures.boxes(
    pictures[:4], [truth_marks(one, classes) for one in one_by_one(objects)[:4]],
    "Four training pictures and their objects.", columns=2, size=4, private=PRIVATE,
)  # fmt: skip

# %% [markdown]
# **Augmentation** must move the boxes with the picture, cut them at its edges, and forget what has left it, or has all
# but left it: the logarithm of a sliver's width would drown the other losses. What may be changed depends on the data: a
# mirrored cell is a cell, but a mirrored 2 is nothing. So `quick` only shifts, scales and stretches a little.

# %%
changed, moved = pictures, objects
for step, change in enumerate(AUGMENT):
    changed, moved = change(changed, moved, seed=(12, step))
figures.boxes(
    changed[:4], [truth_marks(one, classes) for one in one_by_one(moved)[:4]],
    "The same four as the training may see them: the boxes went along.",
    columns=2, size=4, private=PRIVATE,
)  # fmt: skip

# %% [markdown]
# **Anchors.** Those of the paper suit COCO's objects. For our own we ask k-means, with $1 - \text{IoU}$ as
# the distance, for the nine sizes that suit the *training* boxes best. (It begins with nine sizes of the data, gives every
# box to the nearest, moves each of the nine to the mean of its boxes, and repeats this until no box changes sides. The three
# smallest would go to the fine grid, the three largest to the coarse one.) How well do anchors suit? By the mean, over all
# boxes, of the IoU with the best anchor. **Predict first:** with which nine will the network learn better?


# %% tags=["definition"]
def anchor_quality(sizes, anchors):
    """Return the mean IoU of box sizes, (n, 2), with the anchor that suits each best."""
    return float(np.max(size_iou(sizes, np.reshape(anchors, (-1, 2))), axis=-1).mean())


# %%
pixels = (boxes[:, 2:] - boxes[:, :2]) * np.array(SIZE[::-1])  # width, height
choices = {"of the paper": ANCHORS, "by k-means": anchor_kmeans(pixels, seed=run.seed)}
figure, (panel,) = figures.axes(width=5.5, height=3.6)
panel.scatter(*pixels.T, s=4, alpha=0.3, color="grey", label="training boxes")
for (name, some), marker in zip(choices.items(), "so"):
    some = np.reshape(some, (-1, 2))
    print(f"{name}: mean IoU {anchor_quality(pixels, some):.3f}")
    panel.plot(*some.T, marker, markersize=8, label=f"anchors {name}")
panel.set(
    xlabel="width (pixels)",
    ylabel="height (pixels)",
    xlim=(0, run.scale(quick=64, standard=None, full=None)),
    ylim=(0, run.scale(quick=64, standard=None, full=None)),
)
panel.legend()
figures.show(figure, "Sizes of the training boxes, and nine anchors: of the paper, and by k-means.")

# %% [markdown]
# k-means puts its nine where the boxes are, and that is into one heap: most objects have nearly the same size. Then a
# difference of a few pixels, too small to see, decides which anchor answers for an object; the network has to guess, and each
# anchor learns only from its share of the objects. Of the paper's nine, one or two fit the heap, less well, and need only be
# stretched. So we train with those of the paper. (In a trial with k-means' nine, in `standard`, the loss stayed
# higher and the boxes fitted worse. In `quick` the paper's larger ones lie outside the picture above. For
# COCO, whose objects have all sizes, k-means is right, and that is how the paper's nine were found.)
#
# ### 5.2 Build and train
#
# **From outputs to detections.** Decode all boxes of all three outputs; the score of a box for a class is
# objectness times the probability of the class; drop low scores; suppress, each class on its own, what
# overlaps by more than 0.5; keep at most the 100 best of a picture.


# %% tags=["definition"]
def propose(outputs, anchors, size):
    """Return all boxes of a batch, (batch, n, 4), and their scores, (batch, n, classes)."""
    boxes, scores = [], []
    for output, scale_anchors in zip(outputs, anchors):
        codes, objectness, kinds = split_output(tf.convert_to_tensor(output))
        score = tf.sigmoid(objectness)[..., tf.newaxis] * tf.sigmoid(kinds)
        decoded = decode_boxes(codes, scale_anchors, size)
        for found, values in ((boxes, decoded), (scores, score)):
            found.append(tf.reshape(values, (len(values), -1, values.shape[-1])))
    return tf.concat(boxes, axis=1).numpy(), tf.concat(scores, axis=1).numpy()


def detect(network, images, score_threshold=0.01):
    """Return the detections in each image of a batch: dicts of boxes, scores and labels."""
    outputs = network.look(tf.convert_to_tensor(images))
    proposed = propose(outputs, network.anchors, tuple(images.shape[1:3]))
    return [select_detections(*one, score_threshold) for one in zip(*proposed)]


# %% tags=["definition"]
Evaluation = collections.namedtuple("Evaluation", "truths detections judged precisions")


def evaluate(network, batches):
    """Return truths and detections, image by image, and the AP, (thresholds, classes)."""
    truths, detections = [], []
    for images, objects in batches:
        truths += one_by_one(objects)
        detections += detect(network, images)
    judged = judge_detections(truths, detections)
    n_classes = network.outputs[0].shape[-1] - 5
    return Evaluation(truths, detections, judged, average_precisions(judged, n_classes))


def map_50(evaluation):
    """Return the mean AP at IoU 0.5 over the classes that occur."""
    return float(np.nanmean(evaluation.precisions[0]))


def map_50_95(evaluation):
    """Return the mean AP over the ten thresholds of COCO and the classes that occur."""
    return float(np.nanmean(evaluation.precisions))


class ValidationMAP(keras.callbacks.Callback):
    """Add `val_map_50` and `val_map_50_95` to each epoch's numbers, measured `every` so many."""

    def __init__(self, batches, every):
        super().__init__()
        self.batches, self.every = batches, every
        self.last = {"val_map_50": 0.0, "val_map_50_95": 0.0}

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            found = evaluate(self.model, self.batches)
            self.last = {"val_map_50": map_50(found), "val_map_50_95": map_50_95(found)}
        logs.update(self.last)


# %% [markdown]
# **Two phases.** The book trains the outputs first, with everything else frozen, and then everything, with
# a smaller learning rate. The reason is that of every fine-tuning: new layers send large, senseless
# gradients into what has been learned (lab 9). So:
#
# 1. *Phase 1*, at one size. A backbone that has learned before is frozen; one with random weights has
#    nothing to keep, and learns.
# 2. *Phase 2*: everything learns, and every batch is scaled to a size drawn at random. The network is the same for all of
#    them, and objects come in more sizes. (`quick` has no time for it.)
#
# (In the book, and with the authors' file, the neck has learned, too; it is not frozen here, since in our other two
# profiles it is new.) A backbone that has learned also keeps its batch normalisation as it was. The learning rate makes one
# cycle in each phase. `ValidationMAP` measures on the validation images, and each phase ends with the weights of
# the best epoch that was measured, by `map_50_95`, so that boxes also fit. Both phases can be stopped at any moment, and go
# on after the
# last finished epoch.
#
# > **Note on the book.** Its second step refers to two variables that are never made (`darknet` and `model_ep`), so it
# > stops with an error; the name of its weight file differs from what its converter writes, and is set twice. Its test
# > program lacks an import and a comma.


# %% tags=["definition"]
def imagenet_body():
    """Return EfficientNet-Lite0 with ImageNet's weights, cut to maps of 1/8, 1/16 and 1/32."""
    body = backbones.backbone(backbones.LITE, (None, None, 3))
    ends = ("stage3_block2_add", "stage5_block3_add", "stage7_block1_narrow_norm")
    maps = [body.get_layer(end).output for end in ends]
    return keras.Model(body.input, maps, name="backbone")


BODY = run.scale(quick=imagenet_body, standard=imagenet_body, full=darknet)
WIDTH = run.scale(quick=1 / 4, standard=1 / 4, full=1.0)
# Depthwise convolutions, which the small backbone is full of, are slower in bfloat16 (lab 9).
NUMERICS = run.scale(quick=contextlib.nullcontext, standard=contextlib.nullcontext, full=run.fast)


# %% tags=["definition"]
def train_phase(number, network, learned, examples, validation_batches):
    """Compile and fit phase 1 or 2; the network ends as in its best epoch. Return the history."""
    phase = PHASES[number - 1]
    body = network.get_layer("backbone")
    body.trainable = number == 2 or not learned
    for layer in body.layers:  # what has learned keeps its normalisation, in inference mode
        layer.trainable &= not (learned and isinstance(layer, layers.BatchNormalization))
    batches = object_batches(
        examples, SIZE, phase.batch_size, shuffle=True, augment=AUGMENT,
        seed=run.seed + number, sizes=phase.sizes,
    )  # fmt: skip
    rate = schedules.one_cycle(phase.peak, phase.epochs * len(batches))
    # XLA would compile anew for each of the sizes.
    network.compile(keras.optimizers.Adam(rate), jit_compile=False)
    network.optimizer.build(network.trainable_variables)  # else the step is prepared twice
    watch = ValidationMAP(validation_batches, EVERY)
    keep_best = keras.callbacks.EarlyStopping(
        "val_map_50_95", mode="max", patience=1000, restore_best_weights=True
    )
    parts = (scale_loss, yolo_loss, best_overlap, split_output, assign_targets, encode_boxes)
    code = [inspect.getsource(part) for part in (*parts, decode_boxes)]
    (first, objects), settings = next(iter(batches)), str((PHASES, EVERY, IGNORE))
    name = f"phase_{number}"
    decides = [batches, first, objects, *code, settings, *network.get_weights()]
    history = network.fit(
        batches, epochs=phase.epochs, verbose=0, shuffle=False,
        callbacks=run.callbacks(name, watch, keep_best, data=decides),
    )  # fmt: skip
    best = f"best after epoch {keep_best.best_epoch + 1} of {phase.epochs}"
    print(f"{name}: {history.seconds:.0f} s, {best}: mAP@[.5:.95] {keep_best.best:.3f}")
    return history.history


# %% [markdown]
# In `full`, if the authors' file is there, all layers take their weights from it but the last ones, which have other
# classes.


# %% tags=["definition"]
def adopt(network, published):
    """Give a network the weights of a published one, except where shapes differ (the outputs)."""
    for ours, theirs in zip(network.layers, published.layers):
        if [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]:
            ours.set_weights(theirs.get_weights())


# %%
from_coco = run.scale(quick=False, standard=False, full=coco_file is not None)
learned = run.scale(quick=True, standard=True, full=from_coco)

# %% [markdown]
# **Predict first:** a detector must learn where objects are, how large they are, and what they are. Which
# of the three parts of the loss will fall first? And which part is the largest at the beginning, although it asks
# the simplest question?

# %%
keras.utils.set_random_seed(run.seed)
with NUMERICS():
    network = make_yolo(BODY(), len(classes), width=WIDTH)
if from_coco:
    adopt(network, published)
print(f"{network.count_params():,} parameters")
histories = [
    train_phase(number, network, learned, train, validation_batches)
    for number in range(1, 1 + len(PHASES))
]

# %% [markdown]
# What one keeps is the network. `keras.saving.load_model` reads it back in another program, which must first run the
# set-up and the definitions of sections 1 to 5.2 (`Yolo` and `ByAnchor` are among them). Write down `classes` and `SIZE`,
# too. (To try it on a picture, also run the definitions of section 6.)

# %%
file = paths.home() / f"my_detector_{run.profile}.keras"
network.save(file)
print(f"{file.name}: {file.stat().st_size / 1e6:.0f} MB in the work folder")
again, one = keras.saving.load_model(file), pictures[:1]
same = [np.allclose(a, b, atol=1e-4) for a, b in zip(again(one), network(one))]
print("read back, it says the same:", all(same))

# %% [markdown]
# ### 5.3 Show the results

# %%
figure, panels = figures.axes(1, 2, width=4.5)
frames = [pd.DataFrame(history) for history in histories]
measured = np.concatenate([np.arange(1, len(frame) + 1) % EVERY == 0 for frame in frames])
joined = pd.concat(frames, ignore_index=True)
joined.index += 1
for metric, dash, colour in zip(("box", "objectness", "classes"), figures.DASHES, figures.COLOURS):
    panels[0].plot(joined[metric], linestyle=dash, color=colour, label=metric)
for metric, label in (("val_map_50", "mAP@.5"), ("val_map_50_95", "mAP@[.5:.95]")):
    panels[1].plot(joined[metric][measured], marker="o", label=label)
for panel in panels:
    for frame in frames[1:]:
        panel.axvline(len(joined) - len(frame) + 0.5, color="grey", linestyle=":")
    panel.set(xlabel="epoch")
panels[0].set(ylabel="loss of an image", yscale="log")
panels[1].set(ylabel="mAP on validation images", ylim=(0, 1))
for panel in panels:
    panel.legend()
figures.show(
    figure,
    "The parts of the loss while training (left), and mAP, measured every so many epochs; a dotted line: phase 2 begins.",
)

# %% [markdown]
# **What happened, and why.** Objectness is the largest part at first, for two reasons: thousands of empty boxes (in
# `quick`, hundreds) cost a little each, and every object costs $-\ln 0.01 = 4.6$, because we told the network to expect
# nothing. In `standard` the classes fall first and furthest: the three classes differ in colour and size, which
# ImageNet's features hold already. The boxes follow. Objectness falls most slowly and stays the largest, since its
# question is not that simple after all: of the cells and anchors around an object, *which one* answers for it? The
# others are called wrong if they answer, too, unless their boxes overlap well with the object. (Are the parts of `quick`,
# whose digits differ by shape alone, in the same order?)
#
# Also in `standard`: phase 1, in which the body learns nothing, brings most of the mAP. Phase 2 begins with a step back,
# best seen in the loss, because the sizes are new and all weights move. Then it leaves phase 1 behind: less in mAP@.5 than in
# mAP@[.5:.95], so it is above all the fit of the boxes that gets better, and most of that when the steps become small.
#
# Now the test images, by which nothing has been chosen.

# %%
result = evaluate(network, test_batches)
per_class = pd.DataFrame(
    {
        "objects": np.bincount(result.judged.objects, minlength=len(classes)),
        "AP@.5": result.precisions[0],
        "AP@.75": result.precisions[5],
        "AP@[.5:.95]": result.precisions.mean(axis=0),
    },
    index=classes,
)
run.record(
    map_50=map_50(result),
    map_50_95=map_50_95(result),
    ap_50_worst_class=float(np.nanmin(result.precisions[0])),
)
per_class.round(3)

# %%
hardest = [
    label for label in np.argsort(result.precisions[0])[:6] if label in result.judged.objects
]
figure, panels = figures.axes(1, 2, width=4.5)
for panel, threshold in zip(panels, (0.5, 0.75)):
    for label in hardest:
        panel.plot(*precision_recall(result.judged, label, threshold), label=classes[label])
    panel.set(xlabel="recall", ylabel=f"precision, IoU ≥ {threshold}", xlim=(0, 1), ylim=(0, 1.02))
panels[0].legend(fontsize=8)
figures.show(
    figure,
    "Precision and recall on the test images, of at most six classes with the lowest AP, at two IoUs.",
)

# %% [markdown]
# Where a curve ends before recall 1, the other objects have no right detection among those that are left: the score is
# too low, the box does not fit, or suppression has dropped it for a neighbour's sake. At 0.75 boxes must fit: where the
# curve falls most, there the network knows *that* something is there but not exactly where.
#
# **Hits, misses, false alarms.** With detections of score 0.5 and more, as a user would see them. (A false alarm stands
# under the class that the network *said*, a missed object under its own. So an object that is found under a wrong class, or
# with a box that fits badly, counts twice: as missed, and as a false alarm.)


# %% tags=["definition"]
def judged_marks(objects, detections, classes, score_threshold=0.5):
    """Return the marks of one image: hits, false alarms, and the objects that were missed.

    Difficult objects count neither as found nor as missed.
    """
    sure = detections["scores"] >= score_threshold
    shown = {name: values[sure] for name, values in detections.items()}
    found = match_detections(objects, shown)
    marks = [
        figures.Mark(box, classes[label], score, "hit" if place >= 0 else "false alarm")
        for box, label, score, place in zip(shown["boxes"], shown["labels"], shown["scores"], found)
        if place < 0 or not objects["difficult"][place]
    ]
    wanted = (objects["labels"] >= 0) & ~objects["difficult"]
    missed = np.setdiff1d(np.flatnonzero(wanted), found)
    marks += [
        figures.Mark(objects["boxes"][i], classes[objects["labels"][i]], None, "missed")
        for i in missed
    ]
    return marks


# %%
marks = [judged_marks(t, d, classes) for t, d in zip(result.truths, result.detections)]
kinds = pd.DataFrame(
    [(mark.name, mark.kind) for one in marks for mark in one], columns=["class", "kind"]
)
pd.crosstab(kinds["class"], kinds["kind"])

# %%
faults = np.array([sum(mark.kind != "hit" for mark in one) for one in marks])
order = np.argsort(faults, kind="stable")
chosen = [*order[:2], *order[::-1][:4]]
shown = {i: image for i, (image, _) in enumerate(test_batches.unbatch()) if i in chosen}
figures.boxes(
    [shown[i] for i in chosen], [marks[i] for i in chosen],
    "Test pictures with the fewest mistakes (1, 2) and the most (3 to 6): hits are solid, missed objects dashed, false alarms dotted.",
    columns=2, size=4, private=PRIVATE,
)  # fmt: skip

# %% [markdown]
# **What happened, and why.** In `standard` most mistakes are of two kinds. The missed red cells lie in heaps: of two boxes
# that cover each other by more than half, suppression keeps one, and in a heap it is hard to say whose edge an edge is. And
# many false alarms are none: in picture 4 nearly every cell is found, and nobody has annotated them. Such pictures keep the
# mAP below 1 for any detector, so look at the data before you blame the network.
#
# **How fast, and at which size?** The same weights take any input that 32 divides. A smaller one costs
# less. (Seconds for one picture on this computer, from pixels to detections.) Only a phase 2 with several
# sizes prepares a network for this. (`quick` has trained at one size, so its table has one row.)


# %% tags=["definition"]
def seconds_per_image(network, image, repeats=9):
    """Return the median time from one image to its detections."""
    seconds = []
    for _ in range(repeats + 1):  # the first one warms up
        begin = time.perf_counter()
        detect(network, image[np.newaxis])
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[1:]))


# %%
rows = {}
for size in sorted({SIZES[0], SIZE, SIZES[-1]}):
    batches = object_batches(test, size)
    image = next(iter(batches))[0][0].numpy()
    n_boxes = sum(3 * (size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    found = result if size == SIZE else evaluate(network, batches)
    measured = map_50(found), seconds_per_image(network, image)
    rows[f"{size[0]} × {size[1]}"] = (n_boxes, *measured)
run.record(seconds_per_image=rows[f"{SIZE[0]} × {SIZE[1]}"][-1])
table = pd.DataFrame.from_dict(rows, orient="index", columns=["boxes", "mAP@.5", "seconds"])
table.round(3)

# %% [markdown]
# ## 6. A picture of your own
#
# Write the path of a picture into the cell (a name without a folder is looked for beside this notebook) and run it; nothing
# is trained again. Without one, it takes a photo of a flower. **Predict first:** what will a detector find there that was
# trained to find digits, or cells?


# %% tags=["definition"]
def read_picture(path):
    """Return a picture from a file: upright, RGB, (height, width, 3), values in [0, 1]."""
    with PIL.Image.open(path) as picture:
        upright = PIL.ImageOps.exif_transpose(picture).convert("RGB")
    return np.asarray(upright, "float32") / 255


def detect_in_picture(network, picture, size, score_threshold=0.5):
    """Return the detections in a picture of any size; boxes are relative to the picture."""
    nothing = {
        "boxes": tf.zeros((0, 4)), "labels": tf.zeros(0, tf.int64), "difficult": tf.zeros(0, tf.bool)
    }  # fmt: skip
    framed, _ = letterbox(picture, nothing, size)
    (found,) = detect(network, framed[tf.newaxis], score_threshold)
    return found | {"boxes": unletterbox_boxes(found["boxes"], picture.shape[:2], size).numpy()}


def found_marks(detections, classes):
    """Return the marks of the detections in one picture."""
    each = zip(*(detections[name] for name in ("boxes", "labels", "scores")))
    return [figures.Mark(box, classes[label], score) for box, label, score in each]


# %%
from sklearn.datasets import load_sample_image

PICTURE = None  # for example "holiday.jpg"
picture = read_picture(PICTURE) if PICTURE else load_sample_image("flower.jpg") / np.float32(255)
found = detect_in_picture(network, picture, SIZE)
figures.boxes(
    [picture], [found_marks(found, classes)], "What the network finds on this picture.",
    columns=1, size=5, private=PICTURE is not None,
)  # fmt: skip

# %% [markdown]
# A detector knows its classes and "nothing of that"; what it has never seen it must put into one of these.
# Nothing in its training as a detector has told it what a petal is *not*, so its answers far from its data mean little.
#
# ## 7. Further · 80 classes
#
# With the file of the authors, the network of section 3 knows the 80 classes of COCO at once.
#
# > **Note on the book.** Six classes of VOC have other names in its list of COCO's; whoever tests COCO's weights on
# > VOC must translate.


# %% tags=["definition"]
COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl,
banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch,
potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave,
oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"""
VOC = """aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"""
COCO, VOC = (names.replace("\n", " ").split(", ") for names in (COCO, VOC))

# %% tags=["nbval-check-output"]
print(len(COCO), "and", len(VOC), "classes; not under the same name:", sorted({*VOC} - {*COCO}))

# %%
photos = [load_sample_image(name) / np.float32(255) for name in ("china.jpg", "flower.jpg")]
if coco_file:
    read_darknet(published, coco_file)  # again: it may have been built anew since
    found = [detect_in_picture(published, photo, (416, 608)) for photo in photos]
    marks = [found_marks(one, COCO) for one in found]
    figures.boxes(photos, marks, "What YOLO-v3 with its authors' weights finds.", columns=2, size=4)
else:
    print("not without its weight file, see section 3.6")

# %% [markdown]
# ## 8. Results
#
# mAP on the test images, AP of the hardest class, and seconds for each picture; the book has none of these. In `quick`
# they come from generated scenes of digits, in `standard` from blood cells.

# %%
run.table()

# %% [markdown]
# ## 9. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · Overlap
#
# Compute the IoU of one box with many, in NumPy, without a loop.


# %% nbgrader={"grade": false, "grade_id": "overlaps", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def overlaps(box, others):
    """Return the IoU of a box, (4,), with each of others, (n, 4): corners x1, y1, x2, y2."""
    ### BEGIN SOLUTION
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    area, areas = (np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (box, others))
    return common / (area + areas - common)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "overlaps_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(overlaps) as check:
    box = np.array([0.0, 0.0, 4.0, 4.0])
    hint = "an edge has no area: a box is x2 − x1 wide, nothing is added"
    check(overlaps(box, np.array([[4.0, 0.0, 8.0, 4.0]])), [0.0], hint)
    hint = "divide by what both cover together: what they share counts once"
    check(
        overlaps(box, np.array([[2.0, 0.0, 6.0, 4.0], [1.0, 1.0, 3.0, 3.0]])), [1 / 3, 0.25], hint
    )
    hint = "far apart both sides of the shared part are negative, and their product is positive"
    check(overlaps(box, np.array([[5.0, 5.0, 9.0, 9.0], [6.0, 0.0, 8.0, 4.0]])), [0.0, 0.0], hint)
    hint = "x and y: a box that is higher than wide"
    check(overlaps(box, np.array([[1.0, 0.0, 3.0, 8.0]])), [1 / 3], hint)

# %% [markdown]
# ### Exercise 2 · Suppression
#
# Write non-maximum suppression for one class: steps 2 to 5 of section 1. Return the places of the kept boxes in the order
# in which they are kept, the best score first. `iou(box, others)`, from the set-up cell, compares a box with
# one or many.


# %% nbgrader={"grade": false, "grade_id": "suppress", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def suppress(boxes, scores, threshold):
    """Return the list of the kept places: boxes (n, 4), scores (n,), drop above `threshold`."""
    ### BEGIN SOLUTION
    left, kept = list(np.argsort(-scores)), []
    while left:
        best, *left = left
        kept.append(int(best))
        left = [i for i in left if iou(boxes[best], boxes[i]) <= threshold]
    return kept
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "suppress_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(suppress) as check:
    row = np.array([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [4.0, 0.0, 8.0, 4.0]])  # IoU 1/3
    first = suppress(row[[0, 2]], np.array([0.3, 0.9]), 0.2)
    check(first, [1, 0], "keep boxes that do not touch; begin with the highest score")
    check(suppress(row[:2], np.array([0.9, 0.3]), 0.2), [0], "drop what overlaps with a better box")
    hint = "drop only what overlaps by more than the threshold that was given"
    check(suppress(row[:2], np.array([0.9, 0.3]), 0.4), [0, 1], hint)
    hint = "a box that has been dropped drops no others"
    check(suppress(row, np.array([0.9, 0.8, 0.7]), 0.2), [0, 2], hint)

# %% [markdown]
# ### Exercise 3 · Decode
#
# A cell of YOLO-v3 says $t_x, t_y, t_w, t_h$. Where is the box, in pixels? Cells are `stride` pixels wide
# and high; the anchor is (width, height) in pixels.


# %% nbgrader={"grade": false, "grade_id": "decode", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def decode(t, row, column, anchor, stride):
    """Return the corners (x1, y1, x2, y2) in pixels; t is (t_x, t_y, t_w, t_h)."""
    ### BEGIN SOLUTION
    x, y = stride * (np.array([column, row]) + 1 / (1 + np.exp(-t[:2])))
    width, height = anchor * np.exp(t[2:])
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "decode_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(decode) as check:
    anchor = np.array([10.0, 20.0])
    hint = "σ(0) = ½: the centre lies in the middle of the cell; half of the size to each side"
    check(decode(np.zeros(4), 0, 0, anchor, 8), [-1.0, -6.0, 9.0, 14.0], hint)
    hint = "x comes from the column, y from the row"
    check(decode(np.zeros(4), 2, 5, anchor, 8), [39.0, 10.0, 49.0, 30.0], hint)
    t = np.array([0.0, 0.0, np.log(2.0), np.log(0.5)])
    check(decode(t, 0, 0, anchor, 8), [-6.0, -1.0, 14.0, 9.0], "a size is its anchor's times e^t")
    t = np.array([np.log(3.0), -np.log(3.0), 0.0, 0.0])
    hint = "the sigmoid moves the centre inside its cell, which is one stride wide"
    check(decode(t, 0, 0, anchor, 32), [19.0, -2.0, 29.0, 18.0], hint)

# %% [markdown]
# **Try this, too:** let the objectness use the focal loss of section 2.4: in `scale_loss`, multiply the entropy of the
# second part by $(1 - p_t)^\gamma$, where $p_t$ is $\sigma(\hat o)$ at an object and $1 - \sigma(\hat o)$ elsewhere. Does the
# network need the bias of −4.6 (in `make_yolo`) then? Run both cells and the training again.
#
# ## 10. What to remember
#
# - IoU measures how well boxes agree; suppression leaves one box of each heap.
# - Detectors differ in where they look: proposed regions, or a fixed set of boxes on grids of several
#   sizes.
# - A box is given relative to a cell and an anchor, so that the network's answers stay near 0. Anchors must suit
#   the objects, and leave no doubt which of them answers.
# - A loss is tested before it is trained: a perfect answer, an empty picture, one image alone and in a
#   batch.
# - Only augment in ways that leave the label true, and let the boxes move with the picture.
# - AP is the area under precision over recall; mAP at 0.5 asks whether objects are found, at 0.5 to 0.95
#   also how exactly.
# - Numbers without names, as in a weight file, need a test of their order.
#
# **Read on.** Girshick et al., *Rich Feature Hierarchies for Accurate Object Detection and Semantic
# Segmentation*, 2014 (arXiv:1311.2524) · Girshick, *Fast R-CNN*, 2015 (arXiv:1504.08083) · Ren et al.,
# *Faster R-CNN*, 2015 (arXiv:1506.01497) · Redmon et al., *You Only Look Once*, 2016 (arXiv:1506.02640) ·
# Liu et al., *SSD*, 2016 (arXiv:1512.02325) · Redmon and Farhadi, *YOLO9000*, 2017 (arXiv:1612.08242) · Lin
# et al., *Feature Pyramid Networks*, 2017 (arXiv:1612.03144) · Lin et al., *Focal Loss for Dense Object
# Detection*, 2017 (arXiv:1708.02002) · Redmon and Farhadi, *YOLOv3: An Incremental Improvement*, 2018
# (arXiv:1804.02767) · Everingham et al., *The PASCAL Visual Object Classes (VOC) Challenge*, 2010.

# %%
run.check()
