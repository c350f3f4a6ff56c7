"""Lab 7: the grid of 36 networks, each with two seeds, at the small scale that the lab states."""

from tools import cells

LAB = "07_tensorboard"
CASES = [
    {**settings, "seed": seed} for seed in (0, 1) for settings in cells.load(LAB, "grid")["GRID"]
]


def measure(definitions, settings):
    """Return the validation accuracy at the end and after each epoch; nothing sees test images."""
    scale = definitions["SCALE"]
    train, validation, _ = definitions["load_parts"]("cifar10", scale["images"])
    history = definitions["train_session"](
        settings, (train, validation), scale["epochs"], scale["share"]
    )
    return {
        "accuracy": history["val_accuracy"][-1],
        "training_accuracy": history["accuracy"][-1],
        "val_accuracy": [round(value, 4) for value in history["val_accuracy"]],
    }
