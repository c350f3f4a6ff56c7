"""Lab 5: its fast network, trained on all 50,000 images with three seeds, and tested."""

from labkit import data

LAB = "05_initialization_and_batchnorm"
CASES = [{"seed": seed} for seed in (0, 1, 2)]


def measure(definitions, settings):
    """Return the test accuracy over two views and over one, and how long it took.

    The seconds are those of `fit` and of the two views; building the network is not counted.
    """
    run, epochs = definitions["run"], definitions["FAST_EPOCHS"]
    train, test = definitions["tfds"].load(
        "cifar10", split=["train", "test"], data_dir=data.tfds_dir("cifar10")
    )
    definitions["keras"].utils.set_random_seed(run.seed)
    with run.fast():
        model = definitions["make_fast"](definitions["some_images"](train))
    history = definitions["train_fast"](model, definitions["fast_batches"](train), epochs)
    batches = definitions["image_batches"](test, 500)
    accuracy_of_views = definitions["accuracy_of_views"]
    one_view, _ = accuracy_of_views(model, batches, mirror=False)
    accuracy, seconds = accuracy_of_views(model, batches)
    return {
        "epochs": epochs,
        "accuracy": accuracy,
        "accuracy_one_view": one_view,
        "seconds": history.seconds + seconds,
    }
