"""Figures with a visible caption, which is their alternative text as well.

Lines differ in dash and marker, not in colour alone, so that a grey-scale print stays readable.
"""

import inspect
import io
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def show(figure: Figure, caption: str, photo: bool = False) -> None:
    """Display a figure and its one-line caption, and close it; photos are kept as JPEG.

    Raises `ValueError` for a caption that is empty or has more than one line.
    """
    if "\n" in caption or not caption.strip():
        raise ValueError("a caption is one line of text")
    stream = io.BytesIO()
    figure.savefig(stream, format="jpeg" if photo else "png", dpi=90)
    plt.close(figure)
    display(Image(stream.getvalue(), format="jpeg" if photo else "png", alt=caption))
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
) -> None:
    """Show pictures of one shape in a grid of `columns`, each `size` inches wide.

    A picture is `(height, width, 3)`, uint8 or floats in [0, 1], or a map `(height, width)`.
    """
    rows = -(-len(pictures) // columns)
    height, width = np.shape(pictures[0])[:2]
    title_height = 0.25 if any(titles) else 0.0
    figure, panels = axes(rows, columns, width=size, height=size * height / width + title_height)
    for panel in panels:
        panel.axis("off")
    for panel, picture, title in zip(panels, pictures, titles, strict=False):
        panel.imshow(np.asarray(picture), interpolation="nearest")
        panel.set_title(title, fontsize=8)
    show(figure, caption, photo=np.ndim(pictures[0]) == 3)


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
