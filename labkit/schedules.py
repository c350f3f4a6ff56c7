"""Learning rates that change from step to step."""

import keras


def one_cycle(
    peak: float, steps: int, climb: float = 0.2
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate that climbs in a line to `peak`, then falls to zero along a cosine.

    It begins at a tenth of the peak, and `climb` is the share of the `steps` that go upwards.
    Source: L. N. Smith, "A Disciplined Approach to Neural Network Hyper-Parameters: Part 1", 2018,
    arXiv:1803.09820, with a cosine for the way down.

    Raises `ValueError` when there are not at least two steps, or `climb` is not within (0, 1).
    """
    if steps < 2 or not 0 < climb < 1:
        raise ValueError(f"one_cycle needs 2 steps and 0 < climb < 1, not {steps} and {climb}")
    upwards = max(1, int(climb * steps))
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, steps - upwards, warmup_target=peak, warmup_steps=upwards
    )
