# %% to_vectors: the batch stays the first axis
def to_vectors(images):
    return tf.reshape(tf.cast(images, tf.float32) / 255, (-1,))


# %% to_vectors: the batch stays the first axis
def to_vectors(images):
    return tf.cast(images, tf.float32) / 255


# %% to_vectors: divide by the largest value
def to_vectors(images):
    return tf.reshape(tf.cast(images, tf.float32), (len(images), -1))


# %% to_vectors: cast to tf.float32 before
def to_vectors(images):
    return tf.reshape(images // 255, (len(images), -1))


# %% descent_step: downhill: subtract
def descent_step(w, b, x, y, learning_rate):
    w, b = tf.Variable(w), tf.Variable(b)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((w * x + b - y) ** 2)
    gradient_w, gradient_b = tape.gradient(loss, [w, b])
    return w + learning_rate * gradient_w, b + learning_rate * gradient_b


# %% descent_step: not their sum
def descent_step(w, b, x, y, learning_rate):
    w, b = tf.Variable(w), tf.Variable(b)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((w * x + b - y) ** 2)
    gradient_w, gradient_b = tape.gradient(loss, [w, b])
    return w - learning_rate * gradient_w, b - learning_rate * gradient_b


# %% descent_step: take learning_rate of each
def descent_step(w, b, x, y, learning_rate):
    w, b = tf.Variable(w), tf.Variable(b)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((w * x + b - y) ** 2)
    gradient_w, gradient_b = tape.gradient(loss, [w, b])
    return w - gradient_w, b - gradient_b


# %% descent_step: the gradients are 12 and 4
def descent_step(w, b, x, y, learning_rate):
    w, b = tf.Variable(w), tf.Variable(b)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.abs(w * x + b - y))
    gradient_w, gradient_b = tape.gradient(loss, [w, b])
    return w - learning_rate * gradient_w, b - learning_rate * gradient_b


# %% make_judge: a probability of one thing lies in [0, 1]
def make_judge():
    image = keras.Input((28, 28, 1), name="image")
    claim = keras.Input((10,), name="claim")
    seen = layers.Dense(32, activation="relu")(layers.Flatten()(image))
    digit = layers.Dense(10, activation="softmax", name="digit")(seen)
    both = layers.Dense(16, activation="relu")(layers.Concatenate()([seen, claim]))
    return keras.Model([image, claim], [digit, layers.Dense(1, name="truth")(both)])


# %% make_judge: concatenate the 32 numbers
def make_judge():
    image = keras.Input((28, 28, 1), name="image")
    claim = keras.Input((10,), name="claim")
    seen = layers.Dense(32, activation="relu")(layers.Flatten()(image))
    digit = layers.Dense(10, activation="softmax", name="digit")(seen)
    both = layers.Dense(16, activation="relu")(layers.Concatenate()([digit, claim]))
    truth = layers.Dense(1, activation="sigmoid", name="truth")(both)
    return keras.Model([image, claim], [digit, truth])


# %% make_judge: ReLU in both hidden layers
def make_judge():
    image = keras.Input((28, 28, 1), name="image")
    claim = keras.Input((10,), name="claim")
    seen = layers.Dense(32)(layers.Flatten()(image))
    digit = layers.Dense(10, activation="softmax", name="digit")(seen)
    both = layers.Dense(16, activation="relu")(layers.Concatenate()([seen, claim]))
    truth = layers.Dense(1, activation="sigmoid", name="truth")(both)
    return keras.Model([image, claim], [digit, truth])


# %% make_judge: first the digit, then the truth
def make_judge():
    image = keras.Input((28, 28, 1), name="image")
    claim = keras.Input((10,), name="claim")
    seen = layers.Dense(32, activation="relu")(layers.Flatten()(image))
    digit = layers.Dense(10, activation="softmax", name="digit")(seen)
    both = layers.Dense(16, activation="relu")(layers.Concatenate()([seen, claim]))
    truth = layers.Dense(1, activation="sigmoid", name="truth")(both)
    return keras.Model([image, claim], [truth, digit])


# %% make_pipeline: shuffle first, then batch
def make_pipeline(images, labels):
    pairs = tf.data.Dataset.from_tensor_slices((images / 255, labels))
    return pairs.batch(4).shuffle(15)


# %% make_pipeline: image and label must stay together
def make_pipeline(images, labels):
    images = tf.data.Dataset.from_tensor_slices(images / 255).shuffle(60)
    labels = tf.data.Dataset.from_tensor_slices(labels).shuffle(60)
    return tf.data.Dataset.zip(images, labels).batch(4)


# %% make_pipeline: the second pass has the order of the first
def make_pipeline(images, labels):
    pairs = tf.data.Dataset.from_tensor_slices((images / 255, labels))
    return pairs.shuffle(60).cache().batch(4)


# %% make_pipeline: take a larger buffer
def make_pipeline(images, labels):
    pairs = tf.data.Dataset.from_tensor_slices((images / 255, labels))
    return pairs.shuffle(4).batch(4)


# %% make_pipeline: divide the images by 255
def make_pipeline(images, labels):
    pairs = tf.data.Dataset.from_tensor_slices((images, labels))
    return pairs.shuffle(60).batch(4)
