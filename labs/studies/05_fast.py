"""Lab 5: its fast network, trained on all 50,000 images with three seeds, and tested."""

from labkit import data

import keras
import tensorflow_datasets as tfds

LAB = "05_initialization_and_batchnorm"
CASES = [{"epochs": 16, "seed": seed} for seed in (0, 1, 2)]


def measure(definitions, settings):
    """Return the test accuracy over two views and over one, and the seconds it all took."""
    run, folder = definitions["run"], data.tfds_dir("cifar10")
    train, test = tfds.load("cifar10", split=["train", "test"], data_dir=folder)
    keras.utils.set_random_seed(run.seed)
    with run.fast():
        model = definitions["make_fast"](definitions["some_images"](train))
    history = definitions["train_fast"](
        model, definitions["fast_batches"](train), settings["epochs"]
    )
    batches = definitions["image_batches"](test, 500)
    accuracy_of_views = definitions["accuracy_of_views"]
    one_view, _ = accuracy_of_views(model, batches, mirror=False)
    accuracy, seconds = accuracy_of_views(model, batches)
    return {
        "accuracy": accuracy,
        "accuracy_one_view": one_view,
        "seconds": history.seconds + seconds,
    }
