# %% wasserstein_line: a distance is never negative
def wasserstein_line(x, y):
    return np.mean(np.sort(x) - np.sort(y))


# %% wasserstein_line: sort both lists
def wasserstein_line(x, y):
    return np.mean(np.abs(np.array(x) - np.array(y)))


# %% wasserstein_line: first the distances, then the mean of them
def wasserstein_line(x, y):
    return np.abs(np.mean(x) - np.mean(y))


# %% wasserstein_line: the mean distance, not the sum
def wasserstein_line(x, y):
    return np.sum(np.abs(np.sort(x) - np.sort(y)))


# %% wasserstein_line: without squares
def wasserstein_line(x, y):
    return np.sqrt(np.mean((np.sort(x) - np.sort(y)) ** 2))


# %% one_sided_penalty: a slope below 1 costs nothing
def one_sided_penalty(critic, points):
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    squares = tf.square(tape.gradient(scores, points))
    slopes = tf.sqrt(tf.reduce_sum(squares, axis=list(range(1, len(points.shape)))) + 1e-12)
    return tf.reduce_mean(tf.square(slopes - 1))


# %% one_sided_penalty: take 1 off, then square
def one_sided_penalty(critic, points):
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    squares = tf.reduce_sum(tf.square(tape.gradient(scores, points)), axis=1)
    return tf.reduce_mean(tf.maximum(squares - 1, 0))


# %% one_sided_penalty: take 1 off, then square
def one_sided_penalty(critic, points):
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    slopes = tf.norm(tape.gradient(scores, points), axis=1)
    return tf.reduce_mean(tf.maximum(slopes - 1, 0))


# %% one_sided_penalty: cut off each point's own, then take the mean
def one_sided_penalty(critic, points):
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    slopes = tf.norm(tape.gradient(scores, points), axis=1)
    return tf.square(tf.maximum(tf.reduce_mean(slopes) - 1, 0))


# %% one_sided_penalty: of an image, the length is over all its numbers
def one_sided_penalty(critic, points):
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    slopes = tf.norm(tape.gradient(scores, points) + 1e-12, axis=1)
    return tf.reduce_mean(tf.square(tf.maximum(slopes - 1, 0)))


# %% one_sided_penalty: a training needs the gradient
def one_sided_penalty(critic, points):
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points)
    gradients = tape.gradient(scores, points).numpy().reshape(len(points), -1)
    slopes = np.linalg.norm(gradients, axis=1)
    return np.mean(np.maximum(slopes - 1, 0) ** 2)


# %% frechet_diagonal: the difference of the standard deviations
def frechet_diagonal(a, b):
    means = a.mean(axis=0) - b.mean(axis=0)
    return (means**2 + (a.var(axis=0) - b.var(axis=0)) ** 2).sum()


# %% frechet_diagonal: divide by n
def frechet_diagonal(a, b):
    means = a.mean(axis=0) - b.mean(axis=0)
    deviations = a.std(axis=0, ddof=1) - b.std(axis=0, ddof=1)
    return (means**2 + deviations**2).sum()


# %% frechet_diagonal: squared differences of the means
def frechet_diagonal(a, b):
    means = a.mean(axis=0) - b.mean(axis=0)
    deviations = a.std(axis=0) - b.std(axis=0)
    return np.abs(means).sum() + (deviations**2).sum()


# %% frechet_diagonal: summed over the features
def frechet_diagonal(a, b):
    means = a.mean(axis=0) - b.mean(axis=0)
    deviations = a.std(axis=0) - b.std(axis=0)
    return (means**2 + deviations**2).mean()


# %% frechet_diagonal: over the images
def frechet_diagonal(a, b):
    means = a.mean(axis=1) - b.mean(axis=1)
    deviations = a.std(axis=1) - b.std(axis=1)
    return (means**2 + deviations**2).sum()


# %% frechet_diagonal: compare feature by feature
def frechet_diagonal(a, b):
    means = a.mean(axis=0) - b.mean(axis=0)
    deviations = a.std(axis=0).sum() - b.std(axis=0).sum()
    return (means**2).sum() + deviations**2
