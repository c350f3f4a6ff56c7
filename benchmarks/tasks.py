"""The measurements that run in one process each: `python -m benchmarks.tasks ceiling`.

Each prints one line of JSON. The training steps of (a) are workers instead, so that they can take
turns with PyTorch.
"""

import argparse
import json
from collections.abc import Callable

from benchmarks import augmentation, book, convolutions, keras_step, measure, waiting
from labkit import machine as labkit_machine
from preprocessing import BOOK_AUGMENTATION, image_batches

import keras
import numpy as np
import tensorflow as tf
from keras import layers

FAST_LAB = "05_initialization_and_batchnorm"


def machine(sizes: dict) -> dict:
    """Return what the machine is, its versions, and the numerics that `run.fast()` chooses."""
    run = keras_step.lab()["run"]
    about = {"machine": labkit_machine.describe(), "versions": labkit_machine.versions()}
    return about | {"policy": run.fast_policy, "gflops": run.speed}


def ceiling(sizes: dict) -> dict:
    """Return the share of the convolution ceiling that a step of the fast network reaches (b)."""
    model, batch_size, name, dtype = fast_network(sizes["share"])
    flops = convolutions.training_flops(model, batch_size)
    train = keras_step.turns(model, keras_step.ready_batches(sizes["steps"], batch_size))
    limits: dict[str, list[float]] = {}

    def best_convolution() -> float:
        for shape, gflops in labkit_machine.ceiling(dtype, sizes["shapes"]).items():
            limits.setdefault(shape, []).append(gflops)
        return 0.0

    seconds = measure.take_turns({"limit": best_convolution, "step": train}, sizes["repeats"])
    best = {shape: measure.summary(found)["value"] for shape, found in limits.items()}
    limit = max(best.values())
    return measure.summary([flops / s / 1e9 / limit for s in seconds["step"]]) | {
        "network": name,
        "dtype": dtype,
        "batch_size": batch_size,
        "gflop_per_image": flops / batch_size / 1e9,
        "images_per_second": batch_size / measure.summary(seconds["step"])["value"],
        "ceiling_gflops": limit,
        "ceiling_by_shape": best,
    }


def augment(sizes: dict) -> dict:
    """Return the speed of batched against image-by-image augmentation, and the p-values (c)."""
    photos, _ = waiting.sample()
    found = augmentation.speed(photos, sizes["images"], sizes["repeats"])
    tf.random.set_seed(0)
    p_values = augmentation.p_values(
        *(
            augmentation.facts(pipeline, photos, sizes["images"])
            for pipeline in (augmentation.batched, augmentation.one_by_one)
        )
    )
    worst = min(p_values, key=p_values.get)
    # Bonferroni's correction: the chance that any of the tests would come out as low.
    adjusted = min(1.0, p_values[worst] * len(p_values))
    return found | {
        "same_distribution": adjusted >= augmentation.SIGNIFICANT,
        "p_value": adjusted,
        "least_alike": worst,
        "p_values": p_values,
    }


def wait(sizes: dict) -> dict:
    """Return the share of an epoch that waits for input, with the pipeline of the labs (d).

    Its network is that of lab 4, its augmentation the book's, which is the most work.
    """
    names = keras_step.lab()
    images, labels = waiting.sample()
    examples = augmentation.as_examples(images, labels).repeat(sizes["copies"])
    batches = image_batches(examples, shuffle=True, augment=BOOK_AUGMENTATION)
    model = keras_step.make_trainer(names, "ours", sizes["share"])
    return waiting.compare(model, batches, sizes["steps"], sizes["repeats"])


def recipe(sizes: dict) -> dict:
    """Return the seconds that the book's best recipe takes for its 100 epochs (e).

    Extrapolated from some steps of training, input included, and of validation.
    """
    keras.utils.set_random_seed(0)
    images, labels = waiting.sample()
    examples = augmentation.as_examples(images, labels)
    steps, batch_size = sizes["steps"], sizes["batch_size"]
    training = book.training_batches(examples.repeat(sizes["copies"]), batch_size).repeat()
    validation = examples.map(book.parse_fn).repeat().batch(batch_size).prefetch(2)
    model = book.make_best_network(sizes["share"])
    batches = iter(training)  # `fit` would fill the shuffle buffer anew in every turn

    def train():
        return measure.timed(lambda: model.train_on_batch(*next(batches)), steps)

    def validate():
        return measure.timed(lambda: model.evaluate(validation, steps=steps, verbose=0)) / steps

    seconds = measure.take_turns({"training": train, "validation": validate}, sizes["repeats"])
    epochs = [
        book.TRAINING_STEPS * a + book.VALIDATION_STEPS * b
        for a, b in zip(seconds["training"], seconds["validation"], strict=True)
    ]
    return measure.summary([book.EPOCHS * epoch for epoch in epochs]) | {
        "measured_steps": steps * sizes["repeats"],
        "seconds_of_an_epoch": measure.summary(epochs)["value"],
    }


def fast_network(share: float) -> tuple[keras.Model, int, str, str]:
    """Return the compiled fast network, its batch size, where it comes from and its dtype.

    From lab 5 once it defines `make_fast(images, share)`, logits, and, if it likes,
    `FAST_BATCH_SIZE`; until then, a residual network of the same kind.
    """
    try:
        names = keras_step.lab(FAST_LAB)
    except FileNotFoundError:
        names = {}
    run = names.get("run") or keras_step.lab()["run"]
    origin = FAST_LAB if "make_fast" in names else "stand-in, a small residual network"
    make = names.get("make_fast", stand_in)
    images, _ = waiting.sample()
    keras.utils.set_random_seed(0)
    with run.fast():
        model = make(images / np.float32(255), share=share)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
        jit_compile=run.jit_compile,
    )
    dtype = keras.DTypePolicy(run.fast_policy).compute_dtype
    return model, names.get("FAST_BATCH_SIZE", 512), origin, dtype


def stand_in(images: np.ndarray, share: float = 1.0) -> keras.Model:
    """Return a residual network of the kind that reaches 94 % quickly (widths 64, 256, 256)."""
    widths = [int(width * share) for width in (64, 256, 256)]

    def block(x, width, pool=False):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D()(x) if pool else x
        return layers.ReLU()(layers.BatchNormalization()(x))

    inputs = keras.Input((32, 32, 3))
    x = block(inputs, widths[0])
    for width in widths[1:]:
        x = block(x, width, pool=True)
        x = layers.Add()([x, block(block(x, width), width)])
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, dtype="float32")(x))


TASKS: dict[str, Callable[[dict], dict]] = {
    "machine": machine,
    "ceiling": ceiling,
    "augment": augment,
    "wait": wait,
    "recipe": recipe,
}


def main() -> None:
    """Run one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--sizes", type=json.loads, default={}, help="how much, as JSON")
    options = parser.parse_args()
    print(json.dumps(TASKS[options.task](options.sizes)), flush=True)


if __name__ == "__main__":
    main()
