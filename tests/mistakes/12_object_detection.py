# %% overlaps: an edge has no area
def overlaps(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low + 1, 0), axis=1)
    area, areas = (np.prod(boxes[..., 2:] - boxes[..., :2] + 1, axis=-1) for boxes in (box, others))
    return common / (area + areas - common)


# %% overlaps: what they share counts once
def overlaps(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    area, areas = (np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (box, others))
    return common / (area + areas)


# %% overlaps: both sides of the shared part are negative
def overlaps(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(high - low, axis=1)
    area, areas = (np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (box, others))
    return common / (area + areas - common)


# %% overlaps: a box that is higher than wide
def overlaps(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    area, areas = ((boxes[..., 2] - boxes[..., 0]) ** 2 for boxes in (box, others))
    return common / (area + areas - common)


# %% suppress: begin with the highest score
def suppress(boxes, scores, threshold):
    left, kept = list(np.argsort(scores)), []
    while left:
        best, *left = left
        kept.append(int(best))
        left = [i for i in left if iou(boxes[best], boxes[i]) <= threshold]
    return kept


# %% suppress: drop what overlaps with a better box
def suppress(boxes, scores, threshold):
    order = np.argsort(-scores)
    return [int(i) for i in order if scores[i] > threshold]


# %% suppress: more than the threshold that was given
def suppress(boxes, scores, threshold):
    left, kept = list(np.argsort(-scores)), []
    while left:
        best, *left = left
        kept.append(int(best))
        left = [i for i in left if iou(boxes[best], boxes[i]) == 0]
    return kept


# %% suppress: a box that has been dropped drops no others
def suppress(boxes, scores, threshold):
    order, kept = np.argsort(-scores), []
    for place, i in enumerate(order):
        if all(iou(boxes[i], boxes[better]) <= threshold for better in order[:place]):
            kept.append(int(i))
    return kept


# %% decode: the centre lies in the middle of the cell
def decode(t, row, column, anchor, stride):
    x, y = stride * (np.array([column, row]) + t[:2])
    width, height = anchor * np.exp(t[2:])
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


# %% decode: x comes from the column
def decode(t, row, column, anchor, stride):
    x, y = stride * (np.array([row, column]) + 1 / (1 + np.exp(-t[:2])))
    width, height = anchor * np.exp(t[2:])
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


# %% decode: a size is its anchor's times e^t
def decode(t, row, column, anchor, stride):
    x, y = stride * (np.array([column, row]) + 1 / (1 + np.exp(-t[:2])))
    width, height = anchor * (1 + t[2:])
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


# %% decode: the sigmoid moves the centre inside its cell
def decode(t, row, column, anchor, stride):
    x, y = stride * (np.array([column, row]) + 0.5) + t[:2]
    width, height = anchor * np.exp(t[2:])
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
