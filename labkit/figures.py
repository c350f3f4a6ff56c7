"""Figures with a visible caption, which is their alternative text as well.

Lines differ in dash and marker, not in colour alone, so that a grey-scale print stays readable.
"""

import collections
import inspect
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from labkit.layout import layered
from labkit.results import rendering

import keras
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from cycler import cycler
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]  # Okabe and Ito, 2008
DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))]
STYLE = {
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=DASHES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "image.cmap": "cividis",
    "font.size": 10,
    "figure.constrained_layout.use": True,
}
plt.rcParams.update(STYLE)
plt.ioff()  # a figure appears where `show` is called, once


def show(figure: Figure, caption: str, photo: bool = False, private: bool = False) -> None:
    """Display a figure and its one-line caption, and close it; photos are kept as JPEG.

    A horizontal axis labelled `epoch` is marked at whole numbers only, however few there are.

    A `private` figure holds pictures that may be looked at but not passed on: it appears when
    somebody runs the notebook, and in a page that others will read its caption stands alone.

    Raises `ValueError` for a caption that is empty or has more than one line.
    """
    for panel in figure.axes:
        locator = panel.xaxis.get_major_locator()
        if panel.get_xlabel() == "epoch" and isinstance(locator, MaxNLocator):
            locator.set_params(integer=True, min_n_ticks=1)
    stream, kind = io.BytesIO(), "jpeg" if photo else "png"
    figure.savefig(stream, format=kind, dpi=90)
    plt.close(figure)
    _display(stream.getvalue(), kind, caption, private)


def _display(picture: bytes, kind: str, caption: str, private: bool = False) -> None:
    """Display an encoded picture and its caption, which is its alternative text."""
    if "\n" in caption or not caption.strip():
        raise ValueError("a caption is one line of text")
    if private and rendering():
        display(Markdown(f"*(Pictures that appear only when you run this cell.) {caption}*"))
        return
    display(Image(picture, format=kind, alt=caption))
    display(Markdown(f"*{caption}*"))


def axes(
    rows: int = 1, columns: int = 1, width: float = 4.0, height: float = 3.0
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its flat array of axes; `width` and `height` are inches for each."""
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    return figure, grid.ravel()


def curves(
    histories: Mapping[str, Mapping[str, Sequence[float]]],
    metrics: Sequence[str],
    caption: str,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Plot learning curves: one panel for each metric, one line for each history.

    Arguments:
        histories: name of the model -> the `history` that `fit` returns, a list for each metric.
        metrics: keys of the histories, such as `"loss"`, `"val_loss"`; one panel each.
        caption: the figure's caption.
        labels: metric -> text of its vertical axis; its own name where none is given.
    """
    figure, panels = axes(1, len(metrics), width=4.5)
    for panel, metric in zip(panels, metrics, strict=True):
        for name, history in histories.items():
            panel.plot(range(1, len(history[metric]) + 1), history[metric], label=name)
        panel.set(xlabel="epoch", ylabel=(labels or {}).get(metric, metric))
        panel.legend()
    show(figure, caption)


def images(
    pictures: Sequence[np.ndarray],
    titles: Sequence[str],
    caption: str,
    columns: int = 8,
    size: float = 1.1,
    private: bool = False,
) -> None:
    """Show pictures of one shape in a grid of `columns`, each `size` inches wide.

    A picture is `(height, width, 3)`, uint8 or floats in [0, 1], or a map `(height, width)`. Those
    that may not be passed on are `private`: see `show`.
    """
    rows, shape = -(-len(pictures) // columns), np.shape(pictures[0])
    above = 0.25 if any(titles) else 0.0  # inches for a title
    high, gap = size * shape[0] / shape[1] + above, 0.04
    # One panel in inches for all: a panel for each picture takes seconds to lay out.
    figure = plt.figure(figsize=(size * columns, high * rows), layout="none")
    panel = figure.add_axes((0, 0, 1, 1))
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=False)):
        left, top = i % columns * size, i // columns * high
        place = (left + gap, left + size - gap, top + high - gap, top + above + gap)
        panel.imshow(np.asarray(picture), extent=place, interpolation="nearest", aspect="auto")
        panel.text(left + size / 2, top + above, title, ha="center", va="bottom", fontsize=8)
    panel.axis("off")
    panel.set(xlim=(0, size * columns), ylim=(high * rows, 0))
    show(figure, caption, photo=len(shape) == 3, private=private)


def animation(
    frames: Sequence[np.ndarray], caption: str, seconds: float = 0.5, shrink: int = 1
) -> None:
    """Show pictures of one shape one after another, over and over; the last one stays longer.

    The result is an animated PNG; where it cannot move, as on paper, it shows the last picture. To
    keep a notebook small, `shrink` pixels become one, and 16 shades of each colour are kept.

    Arguments:
        frames: uint8, `(height, width)` or `(height, width, 3)`.
        caption: the figure's caption.
        seconds: how long each picture stays.
        shrink: factor by which height and width become smaller.
    """
    small = [PIL.Image.fromarray(frame).reduce(shrink) for frame in frames]
    small = [picture.point(lambda value: value // 16 * 17) for picture in small]
    milliseconds = [*(int(1000 * seconds) for _ in small[1:]), 2000]
    stream = io.BytesIO()
    small[-1].save(
        stream, "png", save_all=True, default_image=True, append_images=small,
        duration=milliseconds,
    )  # fmt: skip
    _display(stream.getvalue(), "png", caption)


def confusion(matrix: np.ndarray, classes: Sequence[str], caption: str) -> None:
    """Show a confusion matrix of counts, `(classes, classes)`: rows are true, columns predicted."""
    show(confusion_figure(matrix, classes), caption)


def confusion_figure(matrix: np.ndarray, classes: Sequence[str], numbers: str = "count") -> Figure:
    """Return a confusion matrix of counts as a figure: the darker, the larger the share of its row.

    The cells hold the counts, or with `numbers="share"` the shares. A row without examples is
    empty.
    """
    n = len(classes)
    figure, (panel,) = axes(width=0.55 * n + 1.5, height=0.5 * n + 1)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    panel.imshow(share, cmap="Greys", vmin=0, vmax=1)
    for row, column in np.ndindex(n, n):
        colour = "white" if share[row, column] > 0.5 else "black"
        text = {"count": matrix[row, column], "share": f"{share[row, column]:.2f}"}[numbers]
        panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    panel.set(
        xticks=range(n), yticks=range(n), yticklabels=classes, xlabel="predicted", ylabel="true"
    )
    panel.set_xticklabels(classes, rotation=45, ha="right")
    panel.grid(False)
    return figure


def dots(
    values: Mapping[str, Sequence[float]], ylabel: str, caption: str, book: Mapping[str, float] = {}
) -> None:
    """Show the single values behind each mean as dots, the mean as a bar, the book as a cross.

    `values` has one list for each name; `book` has numbers in the same unit for some of the names.
    """
    figure, (panel,) = axes(width=1.1 * len(values) + 1.5)
    for i, (name, points) in enumerate(values.items()):
        panel.plot([i] * len(points), points, "o", color=COLOURS[0], alpha=0.6, label="one split")
        panel.hlines(np.mean(points), i - 0.25, i + 0.25, color="black", label="mean")
        if name in book:
            panel.plot(i, book[name], "x", color=COLOURS[1], markersize=9, label="book")
    panel.set(xticks=range(len(values)), ylabel=ylabel, xlim=(-0.6, len(values) - 0.4))
    panel.set_xticklabels(values, rotation=20, ha="right")
    handles, names = panel.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    panel.legend(unique.values(), unique.keys())
    show(figure, caption)


def source(function: Callable) -> None:
    """Show the source of a helper where a notebook first uses it."""
    display(Markdown(f"```python\n{inspect.getsource(function)}```"))


def draw(panel: Axes, function: Callable, low: float, high: float, **style) -> None:
    """Plot a function of one variable over [low, high]."""
    x = np.linspace(low, high, 200)
    panel.plot(x, function(x), **style)


# --- objects in pictures --------------------------------------------------------------------------

# Kind of a mark -> colour and dash: light, on a black rim, to stand out from any picture.
MARKS = {
    "object": ("white", "-"),
    "hit": ("#A6DCFF", "-"),
    "missed": ("#FFD24D", "--"),
    "false alarm": ("#FFB3D9", ":"),
}


class Mark(NamedTuple):
    """A box around an object: corners (x1, y1, x2, y2), 0–1 of the picture; a kind of `MARKS`."""

    box: Sequence[float]
    name: str
    score: float | None = None
    kind: str = "object"


def boxes(
    pictures: Sequence[np.ndarray],
    marks: Sequence[Sequence[Mark]],
    caption: str,
    columns: int = 3,
    size: float = 2.6,
    private: bool = False,
) -> None:
    """Show pictures with boxes drawn on them, `columns` side by side, each `size` inches wide.

    To the caption is added what the boxes hold, picture by picture.

    Arguments:
        pictures: arrays `(height, width, 3)`, uint8 or floats in [0, 1]; sizes may differ.
        marks: the boxes of each picture.
        caption: the figure's caption, a whole sentence.
        columns: number of pictures in a row.
        size: inches.
        private: the pictures may not be passed on, see `show`.

    Raises `ValueError` unless every picture has its list of marks.
    """
    if len(pictures) != len(marks):
        raise ValueError(f"{len(pictures)} pictures, but marks for {len(marks)}")
    pictures = [np.asarray(picture) for picture in pictures]
    shapes = [picture.shape[:2] for picture in pictures]
    height = size * max(rows / across for rows, across in shapes) + 0.25
    figure, panels = axes(-(-len(pictures) // columns), columns, width=size, height=height)
    for panel in panels:
        panel.axis("off")
    labels = []
    for number, (picture, found) in enumerate(zip(pictures, marks, strict=True)):
        panel, (rows, across) = panels[number], shapes[number]
        panel.imshow(picture, extent=(0, across, rows, 0))
        panel.set_title(f"picture {number + 1}", fontsize=8)
        labels += [(panel, _mark(panel, mark, (across, rows))) for mark in found]
    figure.draw_without_rendering()  # only now the layout is known
    for panel, label in labels:
        _keep_inside(panel, label)
    show(figure, f"{caption} {_contents(marks)}", photo=True, private=private)


def _mark(panel: Axes, mark: Mark, shape: tuple[int, int]) -> Text:
    """Draw a box on a picture of this (width, height), and return its label."""
    colour, dash = MARKS[mark.kind]
    x1, y1, x2, y2 = np.clip(mark.box, 0, 1) * [*shape, *shape]
    rim = [withStroke(linewidth=3.5, foreground="black")]
    style = {"fill": False, "edgecolor": colour, "linestyle": dash, "path_effects": rim}
    panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, linewidth=1.5, **style))
    score = "" if mark.score is None else f" {mark.score:.2f}"
    plate = {"boxstyle": "square,pad=0.1", "facecolor": colour, "edgecolor": "black", "lw": 0.5}
    return panel.text(x1, y1, mark.name + score, va="top", fontsize=6.5, color="black", bbox=plate)


def _keep_inside(panel: Axes, label: Text) -> None:
    """Move a label so far that all of it lies inside its picture."""
    frame, plate = panel.get_window_extent(), label.get_bbox_patch().get_window_extent()
    place = panel.transData.transform(label.get_position())
    place += np.minimum(frame.max - plate.max, 0)
    place += np.maximum(frame.min - plate.min, 0)
    label.set_position(panel.transData.inverted().transform(place))


def _contents(marks: Sequence[Sequence[Mark]]) -> str:
    """Return in words what is marked, as `Picture 1: 2 cat, 1 dog (missed). Picture 2: nothing`."""
    said = []
    for number, found in enumerate(marks, start=1):
        counts = collections.Counter((mark.name, mark.kind) for mark in found)
        words = [
            f"{count} {name}" + f" ({kind})" * (kind not in ("object", "hit"))
            for (name, kind), count in counts.most_common()
        ]
        said.append(f"Picture {number}: {', '.join(words) or 'nothing'}.")
    return " ".join(said)


# --- boxes and arrows -----------------------------------------------------------------------------

LINE, CHARACTER = 0.16, 0.072  # inches that a line and a letter of a box need


def graph(boxes: Mapping[str, str], arrows: Sequence[tuple[str, str]], caption: str) -> None:
    """Draw boxes in rows and arrows between them, downwards.

    Arguments:
        boxes: name of a box -> its text; the first of its lines is bold.
        arrows: pairs of names, from and to.
        caption: the figure's caption.

    Boxes that no arrow leads to are white, those that none leaves have a thick frame. Raises
    `ValueError` for an arrow to an unknown box and for arrows that run in a circle.
    """
    if unknown := {name for arrow in arrows for name in arrow} - boxes.keys():
        raise ValueError(f"arrows from or to unknown boxes: {', '.join(sorted(unknown))}")
    places, routes = layered(list(boxes), arrows)
    lines = [line for text in boxes.values() for line in text.splitlines()]
    width = CHARACTER * max(map(len, lines)) + 0.25
    height = LINE * max(len(text.splitlines()) for text in boxes.values()) + 0.15
    step_x, step_y = width + 0.25, height + 0.3
    columns = [x for x, _ in (place for route in [places.values(), *routes] for place in route)]
    left, right = min(columns) * step_x - width / 2, max(columns) * step_x + width / 2
    bottom = -max(y for _, y in places.values()) * step_y - height / 2
    margin = 0.1
    size = right - left + 2 * margin, height / 2 - bottom + 2 * margin
    figure = plt.figure(figsize=size, layout="none")
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, height / 2 + margin))
    panel.axis("off")
    for route in routes:
        _arrow(panel, [(x * step_x, -y * step_y) for x, y in route], height / 2)
    starts, ends = ({arrow[i] for arrow in arrows} for i in (0, 1))
    for name, text in boxes.items():
        x, y = places[name][0] * step_x, -places[name][1] * step_y
        fill = "#E3E9EF" if name in ends else "white"
        frame = 1 if name in starts else 2.5
        corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.06"
        panel.add_patch(FancyBboxPatch(corner, width, height, style, fc=fill, ec="black", lw=frame))
        _text(panel, x, y, text.splitlines())
    show(figure, caption)


def _arrow(panel: Axes, route: list[tuple[float, float]], half: float) -> None:
    """Draw an arrow from box to box, straight down beside the boxes of the rows it passes."""
    (x, y), *between, (x_end, y_end) = route
    passed = [point for a, b in between for point in ((a, b + half), (a, b - half))]
    points = [(x, y - half), *passed, (x_end, y_end + half)]
    panel.add_patch(FancyArrowPatch(path=Path(points), arrowstyle="-|>", mutation_scale=11, fc="k"))


def _text(panel: Axes, x: float, y: float, lines: list[str]) -> None:
    """Write the lines of a box around its middle, the first one bold."""
    for number, line in enumerate(lines):
        weight = "normal" if number else "bold"
        height = y + ((len(lines) - 1) / 2 - number) * LINE
        panel.text(x, height, line, ha="center", va="center_baseline", fontsize=9, weight=weight)


def diagram(model: keras.Model, caption: str) -> None:
    """Draw the layers of a Keras model and how they are connected; Graphviz is not needed.

    A box names the layer (if it was given a name), its kind, the shape of its output for one
    example, and its parameters. Raises `ValueError` for a model whose layers are not connected yet
    (a `Sequential` without `Input`) or in its own code only (a subclass of `keras.Model`).
    """
    if not getattr(model, "inputs", None):
        raise ValueError(f"{model.name} has no inputs yet: begin it with keras.Input")
    inside = keras.Model(model.inputs, model.outputs)  # also shows the input of a Sequential
    boxes = {operation.name: _describe(operation) for operation in inside.operations}
    nodes = [node for level in inside._nodes_by_depth.values() for node in level]  # as in Keras'
    pairs = {  # plot_model: no public name leads from a layer to those before it
        (parent.operation.name, node.operation.name): None
        for node in nodes
        for parent in node.parent_nodes
    }
    graph(boxes, list(pairs), caption)


def _describe(operation: keras.Operation) -> str:
    """Return the lines of a layer's box."""
    kind = type(operation).__name__.replace("InputLayer", "Input")
    given = re.sub(r"_\d+$", "", operation.name).replace("_", "") not in (
        "inputlayer",
        kind.lower(),
    )
    details = [kind if given else ""]
    window = np.ravel(getattr(operation, "kernel_size", getattr(operation, "pool_size", ())))
    strides = np.ravel(getattr(operation, "strides", ()))
    details += [_times(window)] if window.size else []
    details += [f"stride {strides[0]}"] if {*strides} - {1} and {*strides} != {*window} else []
    activation = getattr(operation, "activation", None)
    if callable(activation) and activation is not keras.activations.linear:
        details.append(getattr(activation, "__name__", str(activation)))
    shapes = [tensor.shape[1:] for tensor in keras.tree.flatten(operation.output)]
    size = ", ".join(_times(shape) if shape else "1 number" for shape in shapes)
    parameters = operation.count_params() if isinstance(operation, keras.layers.Layer) else 0
    lines = [operation.name if given else kind, ", ".join(filter(None, details)), size]
    lines += [f"{parameters:,} parameters"] if parameters else []
    return "\n".join(filter(None, lines))


def _times(numbers: Sequence[int | None]) -> str:
    """Return a shape such as `28 × 28 × 1`; a size that is not fixed is a question mark."""
    return " × ".join("?" if number is None else f"{number:,}" for number in numbers)
