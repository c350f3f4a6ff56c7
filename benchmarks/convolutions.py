"""Share of the machine's convolution ceiling that a training step reaches (measurement b).

Operations are counted, not measured: a multiplication and an addition are two. A convolution with
a k × k kernel from c to d channels that yields h × w numbers per channel costs 2 k² c d h w per
image forward, as much again for the gradient of its kernel, and as much again for that of its
input; the padding's zeros count. A dense layer costs 2 · inputs · outputs in each of the three.
Gradients that nobody needs are left out: of the kernel of a frozen layer, and of the input of a
layer with nothing to train before it. Everything else (normalisation, ReLU, pooling, loss,
optimiser, input) counts as no work at all, only as time.

The ceiling is what the same machine reaches in the same process and numerics where a training does
nothing but convolve: forward and both gradients of one 3 × 3 convolution with equal channels in
and out, at the fastest of several shapes: `labkit.machine.ceiling`.
"""

import keras
import numpy as np


def training_flops(model: keras.Model, batch_size: int) -> float:
    """Return the floating-point operations of one training step; see the head of this module."""
    total, trained_before = 0.0, False
    for layer in _layers(model):
        trained = bool(layer.trainable_weights)
        total += _forward_flops(layer) * (1 + trained + trained_before)
        trained_before = trained_before or trained
    return total * batch_size


def _forward_flops(layer: keras.layers.Layer) -> float:
    """Return the operations of one layer for one example."""
    if not any(len(weight.shape) > 1 for weight in layer.weights):
        return 0.0  # at most one number a channel, like normalisation
    if not isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
        raise TypeError(f"{layer.name}: {type(layer).__name__} is not counted yet")
    *taps_and_inputs, _ = layer.kernel.shape
    return 2.0 * np.prod(taps_and_inputs) * np.prod(layer.output.shape[1:])


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers in the order of the data, those of models within the model included."""
    found = []
    for layer in model.layers:
        found += _layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found
