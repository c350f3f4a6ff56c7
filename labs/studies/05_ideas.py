"""Lab 5: the fast network with one idea left out at a time, at the small scale that it states."""

from labkit import data

import keras
import tensorflow_datasets as tfds

LAB = "05_initialization_and_batchnorm"
SHARE, EPOCHS = 0.5, 5
# What is left out -> arguments of make_fast, fast_batches and train_fast
WITHOUT = {
    "nothing": ({}, {}, {}),
    "whitening stem": ({"whiten": False}, {}, {}),
    "start as identity": ({"identity": False}, {}, {}),
    "fused normalisation": ({"fused": False}, {}, {}),
    "flip and crop": ({}, {"augment": False}, {}),
    "label smoothing": ({}, {}, {"smoothing": 0.0}),
    "one cycle": ({}, {}, {"one_cycle": False}),
    "weight averaging": ({}, {}, {"average": False}),
}
CASES = [{"without": idea, "seed": seed} for seed in (0, 1, 2) for idea in WITHOUT]


def measure(definitions, settings):
    """Return the validation accuracy and the seconds of an epoch; nothing sees test images."""
    run, folder = definitions["run"], data.tfds_dir("cifar10")
    split = ["train[:90%]", "train[90%:]"]
    train, validation = tfds.load("cifar10", split=split, data_dir=folder)
    for_network, for_batches, for_training = WITHOUT[settings["without"]]
    keras.utils.set_random_seed(run.seed)
    with run.fast():
        images = definitions["some_images"](train)
        model = definitions["make_fast"](images, SHARE, **for_network)
    batches = definitions["fast_batches"](train, **for_batches)
    history = definitions["train_fast"](model, batches, EPOCHS, **for_training)
    validation_batches = definitions["image_batches"](validation, 500)
    accuracy_of_views = definitions["accuracy_of_views"]
    return {
        "accuracy": accuracy_of_views(model, validation_batches)[0],
        "accuracy_one_view": accuracy_of_views(model, validation_batches, mirror=False)[0],
        "seconds_of_epoch": history.seconds / EPOCHS,
    }
