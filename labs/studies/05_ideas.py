"""Lab 5: the fast network with one idea left out at a time, at the small scale that it states."""

from itertools import pairwise
from statistics import median
from time import perf_counter

from labkit import data

LAB = "05_initialization_and_batchnorm"
SHARE, EPOCHS = 0.5, 5
# What is left out -> arguments of make_fast, fast_batches and train_fast
WITHOUT = {
    "nothing": ({}, {}, {}),
    "whitening stem": ({"whiten": False}, {}, {}),
    "start as identity": ({"identity": False}, {}, {}),
    "fast shift": ({"shift_speed": 1.0}, {}, {}),
    "fused operation": ({"fused": False}, {}, {}),  # this leaves out the fast shift, too
    "one cycle": ({}, {}, {"one_cycle": False}),
    "label smoothing": ({}, {}, {"smoothing": 0.0}),
    "flip and crop": ({}, {"augment": False}, {}),
    "weight averaging": ({}, {}, {"average": False}),
}
CASES = [{"without": idea, "seed": seed} for seed in (0, 1, 2) for idea in WITHOUT]


def measure(definitions, settings):
    """Return the validation accuracy, and how long an epoch and a prediction took.

    The seconds of an epoch are the median over all epochs but the first, which also builds the
    graph. Nothing sees test images.
    """
    run, keras = definitions["run"], definitions["keras"]
    train, validation = definitions["tfds"].load(
        "cifar10", split=["train[:90%]", "train[90%:]"], data_dir=data.tfds_dir("cifar10")
    )
    for_network, for_batches, for_training = WITHOUT[settings["without"]]
    keras.utils.set_random_seed(run.seed)
    with run.fast():
        images = definitions["some_images"](train)
        model = definitions["make_fast"](images, SHARE, **for_network)
    batches, ends = definitions["fast_batches"](train, **for_batches), []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(perf_counter()))
    run.forget(model.name)  # a training that goes on would leave too few epochs to time
    definitions["train_fast"](model, batches, EPOCHS, callbacks=[clock], **for_training)
    validation_batches = definitions["image_batches"](validation, 500)
    accuracy_of_views = definitions["accuracy_of_views"]
    accuracy_of_views(model, validation_batches)  # not timed: it reads the images
    one_view, seconds_of_view = accuracy_of_views(model, validation_batches, mirror=False)
    accuracy, seconds_of_views = accuracy_of_views(model, validation_batches)
    return {
        "accuracy": accuracy,
        "accuracy_one_view": one_view,
        "seconds_of_epoch": median(end - begin for begin, end in pairwise(ends)),
        "seconds_of_view": seconds_of_view,
        "seconds_of_views": seconds_of_views,
    }
