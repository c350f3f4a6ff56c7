# %% channel_scale: make one trainable weight for each channel
class ChannelScale(layers.Layer):
    def __init__(self, start=1.0, **options):
        super().__init__(**options)
        self.start = start

    def build(self, input_shape):
        self.scale = tf.fill((input_shape[-1],), self.start)

    def call(self, inputs):
        return inputs * self.scale

    def get_config(self):
        return super().get_config() | {"start": self.start}


# %% channel_scale: make one trainable weight for each channel
class ChannelScale(layers.Layer):
    def __init__(self, start=1.0, **options):
        super().__init__(**options)
        self.start = start

    def build(self, input_shape):
        start = keras.initializers.Constant(self.start)
        self.scale = self.add_weight(input_shape[1:], start, name="scale")

    def call(self, inputs):
        return inputs * self.scale

    def get_config(self):
        return super().get_config() | {"start": self.start}


# %% channel_scale: every value is multiplied by `start`
class ChannelScale(layers.Layer):
    def __init__(self, start=1.0, **options):
        super().__init__(**options)
        self.start = start

    def build(self, input_shape):
        self.scale = self.add_weight((input_shape[-1],), "ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale

    def get_config(self):
        return super().get_config() | {"start": self.start}


# %% channel_scale: multiply by the weights
class ChannelScale(layers.Layer):
    def __init__(self, start=1.0, **options):
        super().__init__(**options)
        self.start = start

    def build(self, input_shape):
        start = keras.initializers.Constant(self.start)
        self.scale = self.add_weight((input_shape[-1],), start, name="scale")

    def call(self, inputs):
        return inputs * self.start

    def get_config(self):
        return super().get_config() | {"start": self.start}


# %% channel_scale: give `start`
class ChannelScale(layers.Layer):
    def __init__(self, start=1.0, **options):
        super().__init__(**options)
        self.start = start

    def build(self, input_shape):
        start = keras.initializers.Constant(self.start)
        self.scale = self.add_weight((input_shape[-1],), start, name="scale")

    def call(self, inputs):
        return inputs * self.scale

    def get_config(self):
        return super().get_config()


# %% channel_scale: what super().get_config() returns
class ChannelScale(layers.Layer):
    def __init__(self, start=1.0, **options):
        super().__init__(**options)
        self.start = start

    def build(self, input_shape):
        start = keras.initializers.Constant(self.start)
        self.scale = self.add_weight((input_shape[-1],), start, name="scale")

    def call(self, inputs):
        return inputs * self.scale

    def get_config(self):
        return {"start": self.start}


# %% top_k: weigh the hits
class TopK(keras.metrics.Metric):
    def __init__(self, k, name="top_k", **options):
        super().__init__(name=name, **options)
        self.k = k
        self.hits = self.add_weight(initializer="zeros", name="hits")
        self.seen = self.add_weight(initializer="zeros", name="seen")

    def update_state(self, classes, outputs, sample_weight=None):
        hits = tf.cast(tf.math.in_top_k(classes, outputs, self.k), self.dtype)
        self.hits.assign_add(tf.reduce_sum(hits))
        self.seen.assign_add(tf.cast(tf.size(hits), self.dtype))

    def result(self):
        return self.hits / self.seen


# %% top_k: divide by the sum of the weights
class TopK(keras.metrics.Metric):
    def __init__(self, k, name="top_k", **options):
        super().__init__(name=name, **options)
        self.k = k
        self.hits = self.add_weight(initializer="zeros", name="hits")
        self.seen = self.add_weight(initializer="zeros", name="seen")

    def update_state(self, classes, outputs, sample_weight=None):
        hits = tf.cast(tf.math.in_top_k(classes, outputs, self.k), self.dtype)
        weights = tf.ones_like(hits) if sample_weight is None else sample_weight
        self.hits.assign_add(tf.reduce_sum(weights * hits))
        self.seen.assign_add(tf.cast(tf.size(hits), self.dtype))

    def result(self):
        return self.hits / self.seen


# %% top_k: one division at the end
class TopK(keras.metrics.Metric):
    def __init__(self, k, name="top_k", **options):
        super().__init__(name=name, **options)
        self.k = k
        self.hits = self.add_weight(initializer="zeros", name="hits")
        self.seen = self.add_weight(initializer="zeros", name="seen")

    def update_state(self, classes, outputs, sample_weight=None):
        hits = tf.cast(tf.math.in_top_k(classes, outputs, self.k), self.dtype)
        weights = tf.ones_like(hits) if sample_weight is None else sample_weight
        self.hits.assign_add(tf.reduce_sum(weights * hits) / tf.reduce_sum(weights))
        self.seen.assign_add(1.0)

    def result(self):
        return self.hits / self.seen


# %% top_k: sums over all batches
class TopK(keras.metrics.Metric):
    def __init__(self, k, name="top_k", **options):
        super().__init__(name=name, **options)
        self.k = k
        self.hits = self.add_weight(initializer="zeros", name="hits")
        self.seen = self.add_weight(initializer="zeros", name="seen")

    def update_state(self, classes, outputs, sample_weight=None):
        hits = tf.cast(tf.math.in_top_k(classes, outputs, self.k), self.dtype)
        weights = tf.ones_like(hits) if sample_weight is None else sample_weight
        self.hits.assign(tf.reduce_sum(weights * hits))
        self.seen.assign(tf.reduce_sum(weights))

    def result(self):
        return self.hits / self.seen


# %% top_k: among the k largest
class TopK(keras.metrics.Metric):
    def __init__(self, k, name="top_k", **options):
        super().__init__(name=name, **options)
        self.hits = self.add_weight(initializer="zeros", name="hits")
        self.seen = self.add_weight(initializer="zeros", name="seen")

    def update_state(self, classes, outputs, sample_weight=None):
        hits = tf.equal(classes, tf.argmax(outputs, axis=-1, output_type=tf.int32))
        hits = tf.cast(hits, self.dtype)
        weights = tf.ones_like(hits) if sample_weight is None else sample_weight
        self.hits.assign_add(tf.reduce_sum(weights * hits))
        self.seen.assign_add(tf.reduce_sum(weights))

    def result(self):
        return self.hits / self.seen


# %% top_k: use the k that was given
class TopK(keras.metrics.Metric):
    def __init__(self, k, name="top_k", **options):
        super().__init__(name=name, **options)
        self.hits = self.add_weight(initializer="zeros", name="hits")
        self.seen = self.add_weight(initializer="zeros", name="seen")

    def update_state(self, classes, outputs, sample_weight=None):
        hits = tf.cast(tf.math.in_top_k(classes, outputs, 2), self.dtype)
        weights = tf.ones_like(hits) if sample_weight is None else sample_weight
        self.hits.assign_add(tf.reduce_sum(weights * hits))
        self.seen.assign_add(tf.reduce_sum(weights))

    def result(self):
        return self.hits / self.seen


# %% stop_on_nan: NaN equals nothing
class StopOnNaN(keras.callbacks.Callback):
    stopped_at = -1

    def on_train_batch_end(self, batch, logs=None):
        if logs["loss"] in (np.inf, float("nan")):
            self.model.stop_training = True
            self.stopped_at = batch


# %% stop_on_nan: an infinite loss counts
class StopOnNaN(keras.callbacks.Callback):
    stopped_at = -1

    def on_train_batch_end(self, batch, logs=None):
        if np.isnan(logs["loss"]):
            self.model.stop_training = True
            self.stopped_at = batch


# %% stop_on_nan: the hook after each training batch
class StopOnNaN(keras.callbacks.Callback):
    stopped_at = -1

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite(logs["loss"]):
            self.model.stop_training = True
            self.stopped_at = epoch


# %% stop_on_nan: as long as the loss is a number
class StopOnNaN(keras.callbacks.Callback):
    stopped_at = -1

    def on_train_batch_end(self, batch, logs=None):
        if logs["loss"] > 50:
            self.model.stop_training = True
            self.stopped_at = batch


# %% stop_on_nan: stopped_at
class StopOnNaN(keras.callbacks.Callback):
    stopped_at = -1

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            self.model.stop_training = True
