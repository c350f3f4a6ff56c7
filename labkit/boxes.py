"""Boxes around objects: formats, overlap, anchors, targets of YOLO-v3, average precision.

A box is its corners (x1, y1, x2, y2): x runs to the right, y down, and x1 < x2, y1 < y2. They are
shares of the width and the height of the image, so they lie in [0, 1] whatever its size. An edge
is a line without thickness: a box is x2 - x1 wide, and (0, 0, 1, 1) is the whole image, as in
COCO and in TensorFlow Datasets (PASCAL VOC's own programs count pixels and add 1). What only
compares boxes (overlap, suppression, average precision) takes any unit, such as pixels, if both
sides have the same. A box that is empty (all zeros: padding) overlaps nothing.

Sizes of images are (height, width) in pixels, as everywhere in TensorFlow. Anchors are (width,
height) in pixels of the network's input, as in the papers; they have the shape (scales, anchors
of a scale, 2) and go from the coarse grid to the fine one, like the outputs of the network.

The objects of an image are a dict: `boxes`, shape (n, 4), `labels`, integers of shape (n,), -1
for padding, and perhaps `difficult` and `crowd`, booleans of shape (n,). The detections in an
image are a dict as well: `boxes`, shape (n, 4), `scores` and `labels`, shape (n,).

What models and pipelines need is written in TensorFlow: it takes arrays, lists and tensors with
any leading dimensions, returns tensors, and works in graphs. What comes after the network
(suppression, clusters, average precision) is NumPy.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

STRIDES = (32, 16, 8)  # pixels of the input for each cell of the three grids
ANCHORS = np.array(  # of YOLO-v3, found on COCO at 416 x 416 pixels
    [
        [(116, 90), (156, 198), (373, 326)],
        [(30, 61), (62, 45), (59, 119)],
        [(10, 13), (16, 30), (33, 23)],
    ],
    "float32",
)
COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)

# --- formats --------------------------------------------------------------------------------------


def swap_xy(boxes):
    """Turn (x1, y1, x2, y2) into (y1, x1, y2, x2), or back.

    The latter is the order of `tf.image` and TensorFlow Datasets.

    Args:
        boxes: shape (..., 4).

    Returns:
        Tensor of the same shape and type.
    """
    return tf.gather(_floats(boxes), [1, 0, 3, 2], axis=-1)


def corners_to_centres(boxes):
    """Turn corners into (centre x, centre y, width, height), in the same unit.

    Args:
        boxes: shape (..., 4), corners.

    Returns:
        Tensor of the same shape and type.
    """
    boxes = _floats(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return tf.concat([(low + high) / 2, high - low], axis=-1)


def centres_to_corners(centres):
    """Turn (centre x, centre y, width, height) into corners: undo `corners_to_centres`."""
    centres = _floats(centres)
    middle, half = centres[..., :2], centres[..., 2:] / 2
    return tf.concat([middle - half, middle + half], axis=-1)


def corners_to_xywh(boxes):
    """Turn corners into (x1, y1, width, height), the format of COCO, in the same unit.

    Args:
        boxes: shape (..., 4), corners.

    Returns:
        Tensor of the same shape and type.
    """
    boxes = _floats(boxes)
    return tf.concat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def xywh_to_corners(boxes):
    """Turn (x1, y1, width, height) into corners: undo `corners_to_xywh`."""
    boxes = _floats(boxes)
    return tf.concat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


# --- geometry -------------------------------------------------------------------------------------


def clip_boxes(boxes):
    """Cut off what lies outside the image, that is outside [0, 1]; shape (..., 4)."""
    return tf.clip_by_value(_floats(boxes), 0.0, 1.0)


def flip_boxes(boxes):
    """Mirror boxes as their image is when left and right are swapped; shape (..., 4)."""
    x1, y1, x2, y2 = tf.unstack(_floats(boxes), axis=-1)
    return tf.stack([1 - x2, y1, 1 - x1, y2], axis=-1)


def move_boxes(boxes, scale, shift):
    """Scale boxes about the upper left corner of the image, then shift them.

    Args:
        boxes: shape (..., 4), corners.
        scale: factors along (x, y), shape (..., 2) or what can be broadcast to it.
        shift: what is then added to (x, y), likewise, in the unit of the boxes.

    Returns:
        Tensor of the shape of `boxes`; parts may lie outside the image.
    """
    boxes = _floats(boxes)
    scale, shift = (tf.cast(numbers, boxes.dtype) for numbers in (scale, shift))
    return tf.concat([boxes[..., :2] * scale + shift, boxes[..., 2:] * scale + shift], axis=-1)


def box_area(boxes):
    """Return the areas, shape (...), of boxes, shape (..., 4); 0 where a corner lies wrong."""
    boxes = _floats(boxes)
    return _area(boxes[..., 2:] - boxes[..., :2])


def iou(boxes, others):
    """Return the intersection over the union of boxes and others, pair by pair.

    Args:
        boxes: shape (..., 4), corners.
        others: shape (..., 4), corners in the same unit; the shapes are broadcast.

    Returns:
        Tensor of shape (...), of the type of `boxes` (float32 if these are integers), from 0
        (nothing in common, or both empty) to 1 (the same box).
    """
    boxes = _floats(boxes)
    others = tf.cast(_floats(others), boxes.dtype)
    common = _common(boxes, others)
    return tf.math.divide_no_nan(common, box_area(boxes) + box_area(others) - common)


def pairwise_iou(boxes, others):
    """Return the intersection over the union of every box with every other.

    Args:
        boxes: shape (..., n, 4), corners.
        others: shape (..., m, 4), corners in the same unit.

    Returns:
        Tensor of shape (..., n, m), as from `iou`.
    """
    boxes, others = _floats(boxes), _floats(others)
    return iou(boxes[..., :, tf.newaxis, :], others[..., tf.newaxis, :, :])


# For NumPy: one call instead of two dozen small ones; not traced anew for every number of boxes.
_pairwise_iou = tf.function(pairwise_iou, autograph=False, reduce_retracing=True)


def size_iou(sizes, anchors):
    """Return the intersection over the union of sizes and anchors laid on the same corner.

    Args:
        sizes: shape (..., 2), width and height.
        anchors: shape (k, 2), width and height in the same unit.

    Returns:
        Tensor of shape (..., k), of the type of `sizes`, from 0 to 1.
    """
    sizes = _floats(sizes, 2)[..., tf.newaxis, :]
    anchors = tf.cast(_floats(anchors, 2), sizes.dtype)
    common = _area(tf.minimum(sizes, anchors))
    return tf.math.divide_no_nan(common, _area(sizes) + _area(anchors) - common)


# --- targets of YOLO-v3 ---------------------------------------------------------------------------


def encode_boxes(boxes, anchors, size):
    """Turn boxes into what a YOLO-v3 network must say in their cells.

    Source: J. Redmon and A. Farhadi, "YOLOv3: An Incremental Improvement", 2018, section 2.1.

    Args:
        boxes: shape (batch, rows, columns, anchors, 4), corners relative to the image, each at
            the cell that holds its centre and at its anchor; zeros where there is none.
        anchors: shape (anchors, 2), width and height in pixels.
        size: (height, width) of the image in pixels: two integers, or an integer tensor.

    Returns:
        Tensor of the same shape: the place of the centre inside its cell, (x, y) from 0 to 1, and
        the natural logarithms of width and height in units of the anchor; zeros where there is
        no box.
    """
    boxes = _floats(boxes)
    centres = corners_to_centres(boxes)
    cells, grid = _cells(boxes)
    inside = centres[..., :2] * grid - cells
    logarithms = tf.math.log(centres[..., 2:] / _relative(anchors, size, boxes.dtype))
    codes = tf.concat([inside, logarithms], axis=-1)
    return tf.where(box_area(boxes)[..., tf.newaxis] > 0, codes, tf.zeros_like(codes))


def decode_boxes(codes, anchors, size):
    """Turn what a YOLO-v3 network says into boxes: undo `encode_boxes`.

    Args:
        codes: shape (batch, rows, columns, anchors, 4), as from `encode_boxes`: the first two are
            the network's outputs *after* the sigmoid.
        anchors: shape (anchors, 2), width and height in pixels.
        size: (height, width) of the image in pixels: two integers, or an integer tensor.

    Returns:
        Tensor of the same shape: corners relative to the image; parts may lie outside it.
    """
    codes = _floats(codes)
    cells, grid = _cells(codes)
    sizes = tf.exp(codes[..., 2:]) * _relative(anchors, size, codes.dtype)
    return centres_to_corners(tf.concat([(codes[..., :2] + cells) / grid, sizes], axis=-1))


def assign_targets(boxes, labels, anchors, size, strides=STRIDES):
    """Give every object its anchor and its cell, and lay all of them out as the network's targets.

    The anchor is, of those of all scales, the one whose size overlaps most with that of the box;
    the cell is the one that holds its centre. Of objects that want the same place, the last one
    gets it.

    Source: J. Redmon and A. Farhadi, "YOLOv3: An Incremental Improvement", 2018, section 2.

    Args:
        boxes: shape (batch, n, 4), corners relative to the image.
        labels: integers, shape (batch, n), classes; -1 where there is no object.
        anchors: shape (scales, anchors, 2), width and height in pixels, as `ANCHORS`.
        size: (height, width) of the images in pixels, multiples of the largest stride: two
            integers, or an integer tensor.
        strides: pixels for each cell of a grid, one number for each scale.

    Returns:
        Tuple of a tensor for each scale, shape (batch, rows, columns, anchors, 6): the corners of
        the box, 1, and its class; six zeros where there is no object.

    Raises:
        ValueError: there are not as many strides as scales, or a side is no multiple of a stride.
    """
    boxes, labels = _floats(boxes), tf.convert_to_tensor(labels)
    anchors = tf.cast(anchors, boxes.dtype)
    n_scales, n_anchors = anchors.shape[:2]
    if len(strides) != n_scales:
        raise ValueError(f"{len(strides)} strides do not go with anchors of {n_scales} scales")
    grids = _grids(size, strides)
    counts = tf.stack([rows * columns * n_anchors for rows, columns in grids])

    centres = corners_to_centres(boxes)
    overlap = size_iou(centres[..., 2:], _relative(tf.reshape(anchors, [-1, 2]), size, boxes.dtype))
    best = tf.argmax(overlap, axis=-1, output_type=tf.int32)
    scale, anchor = best // n_anchors, best % n_anchors
    grid = tf.gather(tf.stack(grids), scale)
    cell = tf.cast(centres[..., 1::-1] * tf.cast(grid, boxes.dtype), tf.int32)
    cell = tf.clip_by_value(cell, 0, grid - 1)  # a centre on the last edge is still inside
    place = (cell[..., 0] * grid[..., 1] + cell[..., 1]) * n_anchors + anchor
    place += tf.gather(tf.cumsum(counts, exclusive=True), scale)

    winners = _last_at_each_place(tf.where(labels >= 0, place, -1), tf.reduce_sum(counts))
    there = tf.ones_like(boxes[..., :1])
    rows = tf.concat([boxes, there, tf.cast(labels, boxes.dtype)[..., tf.newaxis]], axis=-1)
    nothing_first = tf.pad(rows, [[0, 0], [1, 0], [0, 0]])
    targets = tf.split(
        tf.gather(nothing_first, winners, batch_dims=1), counts, axis=1, num=n_scales
    )
    shapes = [(-1, rows, columns, n_anchors, 6) for rows, columns in grids]
    return tuple(tf.reshape(target, shape) for target, shape in zip(targets, shapes, strict=True))


def _last_at_each_place(places, n_places):
    """Return for each place of each image the number of its last object, from 1; 0 for none.

    `places` has the shape (batch, n), with a negative number for what has no place; the result
    has the shape (batch, n_places).
    """
    n_images, n = tf.unstack(tf.shape(places))
    numbers = tf.broadcast_to(tf.range(1, n + 1), [n_images, n])
    own = tf.where(places >= 0, places + tf.range(n_images)[:, tf.newaxis] * n_places, -1)
    last = tf.math.unsorted_segment_max(numbers, own, n_images * n_places)
    return tf.reshape(tf.maximum(last, 0), [n_images, n_places])


def _grids(size, strides):
    """Return rows and columns of each grid: integers, or tensors where the size is a tensor."""
    height, width = tf.unstack(tf.cast(size, tf.int32)) if tf.is_tensor(size) else size
    known = () if tf.is_tensor(size) else (height, width)
    for stride in strides:
        if any(side % stride for side in known):
            raise ValueError(f"size {height} × {width}: {stride} does not divide both")
    return [(height // stride, width // stride) for stride in strides]


def _cells(codes):
    """Return column and row of every cell, and the number of columns and of rows."""
    rows, columns = tf.unstack(tf.shape(codes)[-4:-2])
    cells = tf.stack(tf.meshgrid(tf.range(columns), tf.range(rows)), axis=-1)
    grid = tf.stack([columns, rows])
    return tf.cast(cells, codes.dtype)[:, :, tf.newaxis], tf.cast(grid, codes.dtype)


def _relative(anchors, size, dtype):
    """Return anchors, in pixels, as shares of the width and the height of the image."""
    return tf.cast(anchors, dtype) / tf.reverse(tf.cast(size, dtype), axis=[0])


# --- anchors and detections -----------------------------------------------------------------------


def anchor_kmeans(sizes, k=9, seed=0, starts=10, max_steps=300) -> np.ndarray:
    """Find the k sizes that suit the boxes of a data set best: k-means with 1 - IoU as distance.

    A cluster moves to the mean of its sizes; one that lost all of them stays where it is.

    Source: J. Redmon and A. Farhadi, "YOLO9000: Better, Faster, Stronger", 2017, section 2
    (dimension clusters).

    Args:
        sizes: shape (n, 2), widths and heights of boxes, positive; in pixels of the network's
            input where the result is to be used as anchors.
        k: number of anchors.
        seed: non-negative integer that decides where the clusters begin.
        starts: number of beginnings; the result with the best mean overlap counts.
        max_steps: the most steps of each of them.

    Returns:
        Array of float32, shape (k, 2), the smallest area first, in the unit of `sizes`. Anchors
        for three scales are `anchor_kmeans(sizes).reshape(3, 3, 2)[::-1]`.

    Raises:
        ValueError: a size is not positive, or fewer than k sizes differ.
    """
    sizes = np.reshape(sizes, (-1, 2)).astype("float32")
    if not (sizes > 0).all():
        raise ValueError("sizes must be positive: boxes without area have no anchor")
    different = np.unique(sizes, axis=0)
    if len(different) < k:
        raise ValueError(f"{len(different)} different sizes are too few for {k} anchors")
    random = np.random.default_rng(seed)
    begun = [random.choice(different, k, replace=False) for _ in range(starts)]
    found = [_clusters(sizes, anchors, max_steps) for anchors in begun]
    best = max(found, key=lambda anchors: size_iou(sizes, anchors).numpy().max(axis=1).mean())
    return best[np.argsort(best.prod(axis=1), kind="stable")]


def _clusters(sizes: np.ndarray, anchors: np.ndarray, max_steps: int) -> np.ndarray:
    """Let k-means run from these anchors until no size changes its cluster."""
    nearest = np.full(len(sizes), -1)
    for _ in range(max_steps):
        before, nearest = nearest, size_iou(sizes, anchors).numpy().argmax(axis=1)
        if (nearest == before).all():
            break
        for cluster in np.unique(nearest):
            anchors[cluster] = sizes[nearest == cluster].mean(axis=0)
    return anchors


def non_max_suppression(
    boxes, scores, labels=None, iou_threshold=0.5, score_threshold=-np.inf, max_boxes=100
) -> np.ndarray:
    """Keep the best box of every heap: drop each box that overlaps too much with a better one.

    Without labels it gives what `tf.image.non_max_suppression` gives (for boxes with y first).

    Args:
        boxes: shape (n, 4), corners.
        scores: shape (n,); of equal ones the first box is the better.
        labels: shape (n,), classes: only boxes of the same class drop each other. Without them
            all boxes are of one class.
        iou_threshold: a box goes whose overlap with a better one is *more* than this.
        score_threshold: only boxes with a higher score are looked at.
        max_boxes: the most boxes to keep.

    Returns:
        Array of integers: the places of the kept boxes, by falling score.

    Raises:
        ValueError: boxes, scores and labels are not of equal number.
    """
    boxes, scores = np.reshape(boxes, (-1, 4)), np.asarray(scores)
    labels = np.zeros(len(scores)) if labels is None else np.asarray(labels)
    if not len(boxes) == len(scores) == len(labels):
        raise ValueError(f"{len(boxes)} boxes, {len(scores)} scores, {len(labels)} labels")
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > score_threshold]
    boxes, labels = boxes[order], labels[order]
    rivals = _pairwise_iou(boxes, boxes).numpy() > iou_threshold
    rivals &= labels[:, np.newaxis] == labels
    left, kept = np.ones(len(order), bool), []
    while left.any() and len(kept) < max_boxes:
        best = np.argmax(left)  # the first that is left
        kept.append(best)
        left &= ~rivals[best]
        left[best] = False
    return order[kept]


def select_detections(
    boxes,
    scores,
    score_threshold=0.05,
    iou_threshold=0.5,
    max_detections=100,
    max_candidates=1000,
) -> dict[str, np.ndarray]:
    """Choose the detections in one image from all the boxes that the network proposes.

    A box may be detected as several classes; boxes of different classes do not drop each other.

    Args:
        boxes: shape (n, 4), corners.
        scores: shape (n, classes), of each box and class: objectness times probability.
        score_threshold: what has no higher score is no detection.
        iou_threshold: as for `non_max_suppression`.
        max_detections: the most detections to keep.
        max_candidates: only the best so many are compared with each other.

    Returns:
        The detections by falling score: `boxes`, shape (k, 4), `scores` and `labels`, shape (k,).
    """
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    places, labels = np.nonzero(scores > score_threshold)
    found = scores[places, labels]
    first = np.argsort(-found, kind="stable")[:max_candidates]
    places, labels, found = places[first], labels[first], found[first]
    kept = non_max_suppression(
        boxes[places], found, labels, iou_threshold, max_boxes=max_detections
    )
    return {"boxes": boxes[places[kept]], "scores": found[kept], "labels": labels[kept]}


# --- average precision ----------------------------------------------------------------------------


class Judged(NamedTuple):
    """What became of every detection in a set of images, in the order of the images."""

    thresholds: np.ndarray  # (thresholds,): the overlaps from which on a detection is right
    scores: np.ndarray  # (detections,)
    labels: np.ndarray  # (detections,)
    hits: np.ndarray  # (thresholds, detections): found an object
    ignored: np.ndarray  # (thresholds, detections): this object does not count
    objects: np.ndarray  # (objects,): the labels of all objects that count


def judge_detections(
    truths: Sequence[Mapping],
    detections: Sequence[Mapping],
    thresholds=COCO_THRESHOLDS,
    max_detections=100,
) -> Judged:
    """Find out for every detection whether it is right: the first step to average precision.

    The rules are those of COCO. In each image, the detections of a class choose, the best score
    first, the object with the largest overlap among those that are still free; an overlap below
    the threshold, or a second detection of the same object, is a false alarm. An object that is
    `crowd` (many objects in one box) or `difficult` does not count as missed, any number of
    detections may fall on it, and these count neither as hits nor as false alarms; one that can
    have another object does not choose it. The overlap with a crowd is the share of the detection
    that lies inside.

    (PASCAL VOC's own program lets a detection choose among all objects, and calls it a false alarm
    if its choice is taken. This matters only where objects overlap by more than the threshold.)

    Source: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014; M. Everingham et
    al., "The PASCAL Visual Object Classes (VOC) Challenge", 2010.

    Args:
        truths: the objects of each image: dicts with `boxes` and `labels`, perhaps `difficult` and
            `crowd`; entries with a negative label are skipped.
        detections: the detections in each image: dicts with `boxes`, `scores` and `labels`.
        thresholds: overlaps, more than 0, at most 1, from which on a detection is right.
        max_detections: in each image only the best so many of a class are looked at.

    Returns:
        The `Judged` detections, for `average_precisions` and `precision_recall`.

    Raises:
        ValueError: there are not as many of `truths` as of `detections`, or a threshold is wrong.
    """
    thresholds = np.atleast_1d(np.asarray(thresholds, float))
    if len(truths) != len(detections):
        raise ValueError(f"objects of {len(truths)} images, detections in {len(detections)}")
    if not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ValueError(f"thresholds must be more than 0 and at most 1, not {thresholds}")
    found, counted = [], [np.zeros(0, int)]
    for objects, detected in zip(truths, detections, strict=True):
        detected = _strongest(detected, max_detections)
        labels, spared = np.asarray(objects["labels"], int), _flag(objects, "difficult", "crowd")
        counted.append(labels[(labels >= 0) & ~spared])
        chosen = _choices(objects, detected, thresholds)
        ignored = np.append(spared, False)[chosen]  # the last one is for those that found nothing
        found.append((detected["scores"], detected["labels"], chosen >= 0, ignored))
    nothing = np.zeros(0), np.zeros(0, int), *[np.zeros((len(thresholds), 0), bool)] * 2
    columns = (np.concatenate(column, axis=-1) for column in zip(nothing, *found, strict=True))
    return Judged(thresholds, *columns, np.concatenate(counted))


def match_detections(objects: Mapping, detections: Mapping, threshold=0.5) -> np.ndarray:
    """Return, for each detection in an image, the place of the object that it found.

    Args:
        objects: the objects of the image, as for `judge_detections`.
        detections: the detections in it, n of them.
        threshold: overlap from which on a detection is right.

    Returns:
        Array of integers, shape (n,): places in `objects`, -1 for a false alarm.
    """
    return _choices(objects, detections, np.array([threshold]))[0]


def precision_recall(judged: Judged, label: int, threshold=0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision of one class, after each detection, by falling score.

    Args:
        judged: as from `judge_detections`.
        label: the class.
        threshold: one of the thresholds that were judged.

    Returns:
        recall: shape (n,): share of the objects that the detections so far have found; it never
            falls.
        precision: shape (n,): share of the detections so far that are right.

    Raises:
        ValueError: there is no object of this class, or the threshold was not judged.
    """
    (at,) = np.nonzero(np.isclose(judged.thresholds, threshold))
    n_objects = np.count_nonzero(judged.objects == label)
    if not n_objects or not len(at):
        raise ValueError(f"no object of class {label}, or {threshold} is none of the thresholds")
    chosen = (judged.labels == label) & ~judged.ignored[at[0]]
    order = np.argsort(-judged.scores[chosen], kind="stable")
    right = np.cumsum(judged.hits[at[0], chosen][order])
    return right / n_objects, right / np.arange(1, len(right) + 1)


def average_precision(recall, precision, points: int | None = 101) -> float:
    """Return the average precision of one class: the mean height of its curve.

    At each recall counts the best precision that is reached there or later. The mean is taken
    over so many recalls at equal distances from 0 to 1 (11 in PASCAL VOC until 2009, 101 in
    COCO), or, without `points`, over all (the area under the curve, PASCAL VOC since 2010). A
    recall that is never reached has precision 0.

    Args:
        recall: shape (n,), from 0 to 1, not falling.
        precision: shape (n,), from 0 to 1.
        points: number of recalls, or None.

    Returns:
        The average precision, from 0 to 1:

        >>> round(average_precision([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3], points=None), 4)
        0.8333

    Raises:
        ValueError: the recall falls.
    """
    recall, precision = np.asarray(recall, float), np.asarray(precision, float)
    steps = np.diff(recall, prepend=0.0)
    if (steps < 0).any():
        raise ValueError("recall must not fall: the detections have to be in order of their scores")
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if points is None:
        return float(np.sum(steps * best))
    reached = np.searchsorted(recall, np.linspace(0, 1, points))
    return float(np.append(best, 0.0)[reached].mean())


def average_precisions(judged: Judged, n_classes: int, points: int | None = 101) -> np.ndarray:
    """Return the average precision at every threshold, of every class.

    `numpy.nanmean` of the row of threshold 0.5 is mAP@0.5; that of the whole table, if the
    thresholds are COCO's, is mAP@[.50:.95]. Both agree with `pycocotools`.

    Args:
        judged: as from `judge_detections`.
        n_classes: number of classes.
        points: as for `average_precision`.

    Returns:
        Array of float64, shape (thresholds, n_classes); NaN for classes without objects.
    """
    table = np.full((len(judged.thresholds), n_classes), np.nan)
    for row, threshold in enumerate(judged.thresholds):
        for label in np.unique(judged.objects):
            curve = precision_recall(judged, label, threshold)
            table[row, label] = average_precision(*curve, points)
    return table


def _strongest(detections: Mapping, most: int) -> dict[str, np.ndarray]:
    """Return the detections by falling score, of each class not more than `most`."""
    order = np.argsort(-np.asarray(detections["scores"]), kind="stable")
    labels = np.asarray(detections["labels"], int)[order]
    rank = np.zeros(len(order), int)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.count_nonzero(labels == label))
    kept = order[rank < most]
    return {name: np.asarray(detections[name])[kept] for name in ("boxes", "scores", "labels")}


def _choices(objects: Mapping, detections: Mapping, thresholds: np.ndarray) -> np.ndarray:
    """Return which object each detection chooses at each threshold, or -1: (thresholds, n)."""
    overlap, reusable = _overlap(objects, detections), _flag(objects, "difficult", "crowd")
    chosen = np.full((len(thresholds), len(overlap)), -1)
    free = np.ones((len(thresholds), len(reusable)), bool)
    needed = np.minimum(thresholds, 1 - 1e-10)[:, np.newaxis]  # as pycocotools has it
    order = np.argsort(-np.asarray(detections["scores"]), kind="stable")
    for one in order[(overlap[order] >= needed.min()).any(axis=1)]:
        possible = free & (overlap[one] >= needed)
        better = possible & ~reusable
        possible = np.where(better.any(axis=1, keepdims=True), better, possible)
        # Of equal overlaps the last one counts, again as in pycocotools.
        best = len(reusable) - 1 - np.where(possible, overlap[one], -1)[:, ::-1].argmax(axis=1)
        (rows,) = np.nonzero(possible.any(axis=1))
        chosen[rows, one] = best[rows]
        free[rows, best[rows]] = reusable[best[rows]]
    return chosen


def _overlap(objects: Mapping, detections: Mapping) -> np.ndarray:
    """Return the overlap of detections and objects, (n, m); -1 where the classes differ."""
    boxes, others = (
        np.reshape(one["boxes"], (-1, 4)).astype(float) for one in (detections, objects)
    )
    overlap = _pairwise_iou(boxes, others).numpy()
    if (crowd := _flag(objects, "crowd")).any():
        area = box_area(boxes)[:, tf.newaxis]
        inside = tf.math.divide_no_nan(_common(boxes[:, np.newaxis], others), area)
        overlap = np.where(crowd, inside, overlap)
    same = np.asarray(detections["labels"])[:, np.newaxis] == np.asarray(objects["labels"])
    return np.where(same, overlap, -1.0)


def _flag(objects: Mapping, *names: str) -> np.ndarray:
    """Return which objects carry one of the flags, (m,)."""
    none = np.zeros(len(objects["labels"]), bool)
    return np.any([none, *(np.asarray(objects.get(name, none), bool) for name in names)], axis=0)


# --- what the functions above share ---------------------------------------------------------------


def _floats(values, n=4):
    """Return a tensor of floating-point numbers whose last dimension is n, or raise ValueError."""
    tensor = tf.convert_to_tensor(values)
    if tensor.shape.rank == 0 or tensor.shape[-1] not in (n, None):
        raise ValueError(f"the last dimension must be {n}, not that of shape {tensor.shape}")
    return tensor if tensor.dtype.is_floating else tf.cast(tensor, tf.float32)


def _area(sizes):
    """Return width times height, shape (...), of sizes, shape (..., 2); 0 where one is negative."""
    sizes = tf.maximum(sizes, 0)
    return sizes[..., 0] * sizes[..., 1]


def _common(boxes, others):
    """Return the area that boxes and others have in common, pair by pair."""
    low = tf.maximum(boxes[..., :2], others[..., :2])
    return _area(tf.minimum(boxes[..., 2:], others[..., 2:]) - low)
