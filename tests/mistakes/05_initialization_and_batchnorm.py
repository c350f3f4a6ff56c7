# %% gradients: mind the sign and the factor 2
def gradients(x, y, w1, w2):
    hidden = max(0.0, w1 * x)
    outside = 2 * (y - w2 * hidden)
    return outside * w2 * (w1 * x > 0) * x, outside * hidden


# %% gradients: every factor once
def gradients(x, y, w1, w2):
    hidden = max(0.0, w1 * x)
    outside = -2 * (y - w2 * hidden)
    return outside * (w1 * x > 0) * x, outside * hidden


# %% gradients: where w1·x is negative
def gradients(x, y, w1, w2):
    hidden = max(0.0, w1 * x)
    outside = -2 * (y - w2 * hidden)
    return outside * w2 * x, outside * hidden


# %% batch_normalise: average over batch, height and width
def batch_normalise(x, gamma, beta, epsilon=1e-3):
    return gamma * (x - x.mean()) / np.sqrt(x.var() + epsilon) + beta


# %% batch_normalise: β is added after the scaling
def batch_normalise(x, gamma, beta, epsilon=1e-3):
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return gamma * ((x - mean) / np.sqrt(variance + epsilon) + beta)


# %% batch_normalise: ε is added to the variance
def batch_normalise(x, gamma, beta, epsilon=1e-3):
    mean, deviation = x.mean(axis=(0, 1, 2)), x.std(axis=(0, 1, 2))
    return gamma * (x - mean) / (deviation + epsilon) + beta


# %% batch_normalise: divide each channel by its own
def batch_normalise(x, gamma, beta, epsilon=1e-3):
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (x - mean) / np.sqrt(variance + epsilon) + beta


# %% batch_normalise: divide each channel by its own
def batch_normalise(x, gamma, beta, epsilon=1e-3):
    mean, variance = x.mean(axis=(0, 1, 2)), x.var()
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


# %% fold: each unit's weights are multiplied
def fold(kernel, bias, gamma, beta, mean, variance, epsilon=1e-3):
    factor = gamma / np.sqrt(variance + epsilon)
    return kernel, (bias - mean) * factor + beta


# %% fold: the mean is taken from the old bias
def fold(kernel, bias, gamma, beta, mean, variance, epsilon=1e-3):
    factor = gamma / np.sqrt(variance + epsilon)
    return kernel * factor, bias - mean * factor + beta


# %% fold: each unit's weights are multiplied
def fold(kernel, bias, gamma, beta, mean, variance, epsilon=1e-3):
    factor = gamma / (variance + epsilon)
    return kernel * factor, (bias - mean) * factor + beta
