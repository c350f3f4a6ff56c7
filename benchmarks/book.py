"""What the book does, as plainly as its text says it: augmentation image by image, and its recipe.

The functions follow section 4.3 and chapter 5 (operations, ranges, probabilities), in our own
code: `tf.cond` decides for each image by itself. Values that leave [0, 1] are cut off, which the
book forgets; the sizes that `zoom` asks for are whole numbers.
"""

import keras
import tensorflow as tf
from keras import layers

EPOCHS, TRAINING_STEPS, VALIDATION_STEPS = 100, 704, 79  # of 64 images


def flip(image):
    """Swap left and right half of the time."""
    return tf.image.random_flip_left_right(image)


def color(image):
    """Change hue, saturation, brightness and contrast at random."""
    image = tf.image.random_hue(image, 0.08)
    image = tf.image.random_saturation(image, 0.6, 1.6)
    image = tf.image.random_brightness(image, 0.05)
    return tf.clip_by_value(tf.image.random_contrast(image, 0.7, 1.3), 0.0, 1.0)


def rotate(image):
    """Turn by one, two or three quarters."""
    return tf.image.rot90(image, tf.random.uniform([], 1, 4, dtype=tf.int32))


def zoom(image, low=0.6, high=1.4):
    """Resize by a random factor, then crop or pad to the old size."""
    height, width, _ = image.shape
    factor = tf.random.uniform([], low, high)
    size = tf.cast(tf.cast([height, width], tf.float32) * factor, tf.int32)
    return tf.image.resize_with_crop_or_pad(tf.image.resize(image, size), height, width)


def parse_aug_fn(example):
    """Return one image, changed at random, and its one-hot label."""
    image = tf.cast(example["image"], tf.float32) / 255.0
    image = flip(image)
    for change, chance in ((color, 0.5), (rotate, 0.25), (zoom, 0.5)):
        wanted = tf.random.uniform([]) < chance
        image = tf.cond(wanted, lambda c=change, i=image: c(i), lambda i=image: i)
    return tf.ensure_shape(image, example["image"].shape), tf.one_hot(example["label"], 10)


def parse_fn(example):
    """Return one image with values in [0, 1] and its one-hot label."""
    return tf.cast(example["image"], tf.float32) / 255.0, tf.one_hot(example["label"], 10)


def training_batches(examples, batch_size=64, shuffle=45_000):
    """Return the book's training pipeline: shuffle, change image by image, batch."""
    changed = examples.shuffle(shuffle).map(parse_aug_fn, num_parallel_calls=tf.data.AUTOTUNE)
    return changed.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def make_best_network(share=1.0):
    """Return the network of the book's best result (chapter 5, Model-4), compiled as it does."""
    stack = [keras.Input((32, 32, 3))]
    for number, width in enumerate((64, 128, 256, 128, 64)):
        stack += [layers.Conv2D(int(width * share), 3), layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.MaxPooling2D()] if number == 0 else []
    stack += [layers.Flatten(), layers.Dense(64), layers.BatchNormalization(), layers.ReLU()]
    stack += [layers.Dropout(0.5), layers.Dense(10, activation="softmax")]
    model = keras.Sequential(stack, name="book_model_4")
    model.compile(
        keras.optimizers.Adam(),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=[keras.metrics.CategoricalAccuracy()],
    )
    return model
