"""Diagrams: every arrow points downwards, no box covers another, every layer is described."""

import io
import itertools

from labkit import figures
from labkit.layout import layered
from tools import cells

import keras
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pytest
from IPython.display import Image
from keras import layers

SKIP = ["in", "a", "b", "c", "end"], [
    ("in", "a"), ("a", "b"), ("b", "c"), ("c", "end"), ("in", "end"), ("a", "end")]  # fmt: skip
FAN = ["one", "two", "x", "y", "z"], [("one", "x"), ("one", "y"), ("one", "z"), ("two", "z")]


@pytest.fixture
def drawn(monkeypatch):
    """Return a list to which every diagram adds its boxes, arrows and figure."""
    found = []
    graph = figures.graph

    def keep(boxes, arrows, caption):
        monkeypatch.setattr(
            figures, "show", lambda figure, _: found.append((boxes, arrows, figure))
        )
        graph(boxes, arrows, caption)

    monkeypatch.setattr(figures, "graph", keep)
    yield found
    plt.close("all")


@pytest.mark.parametrize(("names", "arrows"), [SKIP, FAN, (["alone"], [])])
def test_arrows_point_down_and_pass_no_box(names, arrows):
    places, routes = layered(names, arrows)
    assert list(places) == names
    for (a, b), route in zip(arrows, routes, strict=True):
        assert [route[0], route[-1]] == [places[a], places[b]]
        rows = [row for _, row in route]
        assert np.diff(rows).tolist() == [1.0] * (len(rows) - 1)
    stops = {place for route in routes for place in route} | set(places.values())
    for (x, row), (other, other_row) in itertools.combinations(stops, 2):
        assert row != other_row or abs(x - other) > 1 - 1e-9
    between = [place for route in routes for place in route[1:-1]]
    assert len(set(between)) == len(between)


def test_a_circle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        layered(["a", "b"], [("a", "b"), ("b", "a")])


def test_a_child_stands_below_the_middle_of_its_parents():
    places, _ = layered(["a", "b", "sum"], [("a", "sum"), ("b", "sum")])
    assert places == {"a": (0.0, 0.0), "b": (1.0, 0.0), "sum": (0.5, 1.0)}


def test_unknown_boxes_are_named():
    with pytest.raises(ValueError, match="unknown boxes: c"):
        figures.graph({"a": "a", "b": "b"}, [("a", "c")], "caption")


def test_text_stays_inside_its_box(drawn):
    long = "a layer with a rather long name\n128 × 128 × 64 · 1,234,567 parameters"
    figures.graph({"a": long, "b": "b"}, [("a", "b")], "caption")
    ((_, _, figure),) = drawn
    renderer = figure.canvas.get_renderer()
    boxes = [patch.get_window_extent(renderer) for patch in figure.axes[0].patches[1:]]
    for text in figure.axes[0].texts:
        extent = text.get_window_extent(renderer)
        assert any(box.containsx(extent.x0) and box.containsx(extent.x1) for box in boxes)


CHAPTER_1 = {  # boxes, arrows, parameters, by hand from the book's description
    "make_digits": (4, 3, 55_050),
    "make_price": (9, 8, 4_864 + 51_232 + 128 + 1_726_528 + 65),
    "make_portrait": (7, 6, 1_792 + 2 * 36_928 + 2 * 57_601),
    "make_weather": (11, 10, 1_792 + 2 * 36_928 + 704 + 3 * 246_081),
}


@pytest.mark.parametrize("name", CHAPTER_1)
def test_diagrams_of_the_models_of_chapter_1(drawn, name):
    model = cells.load("01_tensorflow_basics")[name]()
    figures.diagram(model, "caption")
    ((boxes, arrows, _),) = drawn
    n_boxes, n_arrows, parameters = CHAPTER_1[name]
    assert (len(boxes), len(arrows)) == (n_boxes, n_arrows)
    assert model.count_params() == parameters
    text = " ".join(boxes.values())
    for layer in model.layers:
        if layer.count_params():
            assert f"{layer.count_params():,} parameters" in text
    heads = {tensor._keras_history.operation.name for tensor in model.outputs}
    assert {name for name in boxes if not any(a == name for a, _ in arrows)} == heads


def test_boxes_say_what_a_layer_does(drawn):
    model = keras.Sequential(
        [
            keras.Input((None, 28, 1)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="eyes"),
            layers.MaxPooling2D(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )
    figures.diagram(model, "caption")
    ((boxes, _, _),) = drawn
    assert list(boxes.values()) == [
        "Input\n? × 28 × 1",
        "eyes\nConv2D, 3 × 3, stride 2, relu\n? × 14 × 8\n80 parameters",
        "MaxPooling2D\n2 × 2\n? × 7 × 8",
        "GlobalAveragePooling2D\n8",
        "Dense\n1\n9 parameters",
    ]


def test_shared_layers_and_bare_operations_are_drawn(drawn):
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = layers.Dense(3, name="shared")
    distance = keras.ops.abs(shared(left) - shared(right))
    figures.diagram(keras.Model([left, right], distance), "caption")
    ((boxes, arrows, _),) = drawn
    assert {("left", "shared"), ("right", "shared")} < set(arrows)
    assert boxes["shared"] == "shared\nDense\n3\n15 parameters"
    assert any(text.startswith("Absolute\n") for text in boxes.values())


def test_a_model_without_inputs_is_refused():
    with pytest.raises(ValueError, match=r"begin it with keras\.Input"):
        figures.diagram(keras.Sequential([layers.Dense(1)]), "caption")


@pytest.fixture
def displayed(monkeypatch):
    """Return a list to which everything displayed is added."""
    found = []
    monkeypatch.setattr(figures, "display", found.append)
    return found


@pytest.mark.parametrize("epochs", [[2], [1, 2], [1, 2, 3, 4]])
def test_epochs_are_whole_numbers(displayed, epochs):
    figure, panels = figures.axes(1, 3)
    for panel, label, scale in zip(
        panels, ("epoch", "seconds", "epoch"), ("linear", "linear", "log"), strict=True
    ):
        panel.plot(epochs, [0.5] * len(epochs), marker="o")
        panel.set(xlabel=label, xscale=scale)
    figures.show(figure, "A few epochs.")
    low, high = panels[0].get_xlim()
    ticks = [tick for tick in panels[0].get_xticks() if low <= tick <= high]
    assert ticks == epochs
    assert any(tick % 1 for tick in panels[1].get_xticks())


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 3)])
def test_animation_holds_all_frames_and_stands_still_at_the_last(displayed, shape):
    shades = [0, 128, 255]
    frames = [np.full(shape, shade, "uint8") for shade in shades]
    figures.animation(frames, "Dark, grey, bright.", seconds=0.25, shrink=2)
    picture, caption = displayed
    assert caption.data == f"*{picture.alt}*" == "*Dark, grey, bright.*"
    assert picture.data.startswith(b"\x89PNG")
    with PIL.Image.open(io.BytesIO(picture.data)) as stored:
        assert (stored.size, stored.n_frames, stored.default_image) == ((6, 4), 4, True)
        seen, milliseconds = [], []
        for place in range(stored.n_frames):  # the still picture, then the frames
            stored.seek(place)
            seen.append(int(np.asarray(stored.convert("L"))[0, 0]))
            milliseconds.append(stored.info.get("duration"))
    assert seen == pytest.approx([255, *shades], abs=17)
    assert milliseconds[1:] == [250, 250, 2000]


@pytest.mark.parametrize("caption", ["", "two\nlines"])
def test_a_caption_is_one_line(displayed, caption):
    with pytest.raises(ValueError, match="one line"):
        figures.animation([np.zeros((4, 4), "uint8")], caption)
    assert displayed == []


@pytest.mark.parametrize("page", [True, False])
def test_private_pictures_do_not_reach_a_page(monkeypatch, page):
    found = []
    monkeypatch.setattr(figures, "display", found.append)
    monkeypatch.setenv("LABS_SOURCE_SHA256", "abc" if page else "")
    figures.images([np.zeros((4, 4, 3))] * 3, [""] * 3, "Three photos.", private=True)
    pictures = [thing for thing in found if isinstance(thing, Image)]
    assert len(pictures) == (0 if page else 1)
    assert "Three photos." in found[-1].data


# --- objects in pictures --------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch):
    """Return a list to which every figure is added, with its caption and options."""
    found = []
    monkeypatch.setattr(figures, "show", lambda *given, **options: found.append((*given, options)))
    yield found
    plt.close("all")


def test_labels_of_boxes_stay_inside_their_picture(shown):
    wide, high = np.zeros((40, 120, 3)), np.full((120, 40, 3), 255, "uint8")
    corners = [(0, 0, 0.1, 0.1), (0.9, 0, 1, 0.1), (0, 0.95, 0.1, 1), (0.9, 0.95, 1.2, 1.1)]
    marks = [figures.Mark(box, "a rather long name", 0.5, "hit") for box in corners]
    figures.boxes([wide, high], [marks, marks], "Two pictures.", columns=2)
    ((figure, _, options),) = shown
    assert options == {"photo": True, "private": False}
    figure.draw_without_rendering()
    for panel in figure.axes:
        assert len(panel.patches) == len(panel.texts) == 4
        frame = panel.get_window_extent()
        for text in panel.texts:
            plate = text.get_bbox_patch().get_window_extent()
            assert frame.x0 - 1 <= plate.x0
            assert frame.y1 + 1 >= plate.y1
            if plate.width <= frame.width:
                assert frame.x1 + 1 >= plate.x1


def test_caption_says_what_the_boxes_hold(shown):
    cats = [figures.Mark((0, 0, 1, 1), "cat", kind="hit")] * 2
    others = [figures.Mark((0, 0, 1, 1), "dog", kind="missed"), figures.Mark((0, 0, 1, 1), "cow")]
    figures.boxes([np.zeros((9, 9, 3))] * 2, [cats + others, []], "Pets.", private=True)
    ((_, caption, options),) = shown
    assert caption == "Pets. Picture 1: 2 cat, 1 dog (missed), 1 cow. Picture 2: nothing."
    assert options["private"]


def test_every_picture_needs_its_marks():
    with pytest.raises(ValueError, match="2 pictures, but marks for 1"):
        figures.boxes([np.zeros((9, 9, 3))] * 2, [[]], "Pets.")


def test_kinds_of_marks_differ_in_dash_and_are_light():
    colours, dashes = zip(*figures.MARKS.values(), strict=True)
    assert len(set(dashes[1:])) == len(dashes) - 1
    for colour in colours:  # dark text stands on it
        assert np.mean(plt.matplotlib.colors.to_rgb(colour)) > 0.6
