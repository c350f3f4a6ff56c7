"""Shuffled batches: each epoch has its own order, whoever asks and however often."""

from itertools import pairwise

from labkit.order import Shuffled

import keras
import numpy as np
import pytest

VALUES = np.arange(23, dtype="uint8")


def epoch(shuffled, number):
    """Return the batches of an epoch as one array (batches, …)."""
    shuffled.on_epoch_begin(number)
    return np.stack([batch.numpy() for batch in shuffled.batches])


@pytest.mark.parametrize(("shape", "n_batches"), [((4,), 5), ((2, 3), 3), ((23,), 1)])
def test_an_epoch_brings_every_value_once_at_most(shape, n_batches):
    shuffled = Shuffled(VALUES, shape, seed=1)
    dealt = epoch(shuffled, 0)
    assert len(shuffled.batches) == n_batches
    assert dealt.shape == (n_batches, *shape)
    assert dealt.dtype == np.uint8
    assert len(np.unique(dealt)) == dealt.size
    assert shuffled.batches.element_spec.shape == shape


def test_values_of_any_shape_stay_whole():
    pictures = np.arange(10)[:, None, None] + np.zeros((10, 2, 3), int)
    dealt = epoch(Shuffled(pictures, (5,)), 0)
    assert dealt.shape == (2, 5, 2, 3)
    assert (dealt == dealt[:, :, :1, :1]).all()


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    first, second = Shuffled(VALUES, (4,), seed=1), Shuffled(VALUES, (4,), seed=1)
    orders = [epoch(first, number) for number in range(3)]
    assert not any((a == b).all() for a, b in pairwise(orders))
    assert (epoch(second, 2) == orders[2]).all()  # without the epochs before
    assert (epoch(first, 0) == orders[0]).all()
    assert not (epoch(Shuffled(VALUES, (4,), seed=2), 0) == orders[0]).all()


def test_fit_deals_the_order_of_each_epoch():
    seen = []

    class Model(keras.Model):
        def train_step(self, data):
            return {"first": data[0]}

    model, shuffled = Model(), Shuffled(VALUES.astype("float32"), (20,), seed=3)
    model.compile("sgd")
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(float(logs["first"]))
    )
    model.fit(shuffled.batches, epochs=4, initial_epoch=2, verbose=0, callbacks=[shuffled, note])
    assert seen == [epoch(shuffled, number)[0, 0] for number in (2, 3)]


def test_too_few_values_are_refused():
    with pytest.raises(ValueError, match="23 examples are too few for a batch of 24"):
        Shuffled(VALUES, (4, 6))
