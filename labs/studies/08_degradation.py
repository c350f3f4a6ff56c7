"""Lab 8: plain and residual networks of 20 and 56 layers on CIFAR-10, eight epochs, three seeds."""

LAB = "08_cnn_architectures"
CASES = [
    {"kind": kind, "depth": depth, "seed": seed}
    for seed in (0, 1, 2)
    for depth in (20, 56)
    for kind in ("plain", "resnet")
]


def measure(definitions, settings):
    """Return test accuracy and training error at the end, and the errors of each epoch.

    `error` is measured while training, on the altered images; `training_error` afterwards, on the
    images as they are. The test images are looked at once, at the end.
    """
    train, validation, test = definitions["load_parts"]("cifar10")
    kind, depth = settings["kind"], settings["depth"]
    model, history = definitions["train_deep"](kind, depth, train, validation)
    image_batches = definitions["image_batches"]
    accuracy = {
        name: model.evaluate(image_batches(part, 500), verbose=0)[1]
        for name, part in (("train", train), ("test", test))
    }
    return {
        "accuracy": accuracy["test"],
        "training_error": 1 - accuracy["train"],
        "minutes": history.seconds / 60,
        "loss": [round(value, 4) for value in history.history["loss"]],
        "error": [round(1 - value, 4) for value in history.history["accuracy"]],
        "val_error": [round(1 - value, 4) for value in history.history["val_accuracy"]],
    }
