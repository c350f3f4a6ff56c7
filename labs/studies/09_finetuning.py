"""Lab 9: the fine-tuned networks, three seeds, and once the same network from random numbers."""

from labkit import backbones, schedules

import keras

LAB = "09_transfer_learning"
FROM_NOTHING = {"size": 128, "epochs": 40, "peak": 2e-3}  # small photos: it needs many epochs
CASES = [
    {"photos": photos, "start": "ImageNet", "seed": seed}
    for photos in ("cats_vs_dogs", "flowers")
    for seed in (0, 1, 2)
] + [{"photos": "cats_vs_dogs", "start": "random numbers", "seed": 0}]


def measure(definitions, settings):
    """Return test accuracy and minutes; from ImageNet also the accuracy with frozen features.

    The test photos are looked at once, at the end.
    """
    train = {"ImageNet": from_imagenet, "random numbers": from_random_numbers}[settings["start"]]
    network, task, history, found = train(definitions, settings["photos"])
    accuracy = network.evaluate(definitions["still_batches"](task, "test"), verbose=0)[1]
    curve = [round(value, 4) for value in history.history["val_accuracy"]]
    return {
        "accuracy": accuracy,
        **found,
        "minutes": history.seconds / 60,
        "val_accuracy": curve,
    }


def from_imagenet(definitions, photos):
    """Fine-tune as the lab does; return network, task, history, and the frozen accuracy."""
    name, size = definitions["NETWORK"], definitions["SIZE"]
    task = definitions["read_photos"](photos, definitions["SPLITS"], size)
    features = definitions["features_of"](task, name, size)
    head = definitions["train_head"](features, task, definitions["run"].seed)
    weights, history = definitions["fine_tune"](photos, task, head)
    network, _ = definitions["tunable"](name, size, len(task.classes))
    network.set_weights(weights)
    frozen = definitions["accuracies"](head(features["test"]), task.labels["test"])
    return network, task, history, {"accuracy_frozen": frozen}


def from_random_numbers(definitions, photos):
    """Train the same network without ImageNet's weights; normalisation learns, too."""
    run, size, epochs = definitions["run"], FROM_NOTHING["size"], FROM_NOTHING["epochs"]
    task = definitions["read_photos"](photos, definitions["SPLITS"], size)
    keras.utils.set_random_seed(run.seed)
    body = backbones.backbone(definitions["NETWORK"], (size, size, 3), weights=None)
    network = definitions["compiled"](definitions["make_network"](body, len(task.classes)))
    batches = definitions["training_batches"](task, size)
    rate = schedules.one_cycle(FROM_NOTHING["peak"], epochs * len(batches))
    keep_best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=1000, restore_best_weights=True
    )
    follow = definitions["FollowRate"](rate)
    history = network.fit(
        batches, validation_data=definitions["still_batches"](task, "validation"),
        epochs=epochs, verbose=0, shuffle=False,
        callbacks=[follow, *run.callbacks("from_random_numbers", keep_best, data=batches)],
    )  # fmt: skip
    return network, task, history, {}
