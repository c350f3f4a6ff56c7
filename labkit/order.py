"""Shuffled batches whose order is known for every epoch, also where a training goes on."""

import math

import keras
import numpy as np
import tensorflow as tf


class Shuffled(keras.callbacks.Callback):
    """Deal an array into batches, in each epoch in an order that seed and epoch alone decide.

    `Dataset.shuffle` remembers how far it is, and begins anew in a new process. This order can be
    computed for any epoch; so a training that was stopped goes on with the batches that it would
    have had. `fit` needs both: `batches` as its data, and the object itself among its callbacks,
    from which it learns the number of the epoch.

    Arguments:
        values: array, shape (n, …); it is kept in memory.
        shape: how many a batch holds, such as `(64,)`; of `(5, 64)` it is five times 64.
        seed: integer.

    `batches` is a `tf.data.Dataset` of tensors `shape + values.shape[1:]`. What is left over at the
    end of an epoch is left out. Raises `ValueError` where there are too few for one batch.
    """

    def __init__(self, values: np.ndarray, shape: tuple[int, ...], seed: int = 0):
        super().__init__()
        size = math.prod(shape)
        n_batches = len(values) // size
        if not n_batches:
            raise ValueError(f"{len(values)} examples are too few for a batch of {size}")
        with tf.device("CPU:0"):  # where tf.data reads them, also beside a GPU
            stored, number = tf.constant(values), tf.Variable(0, dtype=tf.int64)
        self.epoch = number

        def deal(_):
            pair = tf.stack([tf.constant(seed, tf.int64), tf.identity(number)])
            order = tf.argsort(tf.random.stateless_uniform([len(values)], pair))
            rows = tf.reshape(order[: n_batches * size], [n_batches, *shape])
            return tf.data.Dataset.from_tensor_slices(rows)

        rows = tf.data.Dataset.range(1).flat_map(deal)  # `deal` runs when an epoch begins
        rows = rows.apply(tf.data.experimental.assert_cardinality(n_batches))
        batches = rows.map(lambda places: tf.gather(stored, places), tf.data.AUTOTUNE)
        self.batches = batches.prefetch(tf.data.AUTOTUNE)

    def on_epoch_begin(self, epoch, logs=None):
        """Take note of the epoch: the iterator of `fit` is made after this."""
        self.epoch.assign(epoch)
