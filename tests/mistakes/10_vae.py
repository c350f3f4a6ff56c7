# %% pixel_slope: σ(0) = ½
def pixel_slope(images, logits):
    return (images - (1 + np.tanh(logits / 2)) / 2) / len(images)


# %% pixel_slope: σ(ℓ) − x
def pixel_slope(images, logits):
    return ((1 + np.tanh(logits)) / 2 - images) / len(images)


# %% pixel_slope: divide by n
def pixel_slope(images, logits):
    return (1 + np.tanh(logits / 2)) / 2 - images


# %% pixel_slope: not by the pixels
def pixel_slope(images, logits):
    return ((1 + np.tanh(logits / 2)) / 2 - images) / images.size


# %% pixel_slope: overflows in exp
def pixel_slope(images, logits):
    return (np.exp(logits) / (1 + np.exp(logits)) - images) / len(images)


# %% kl_normals: added up over the dimensions
def kl_normals(mean, log_variance, prior_mean, prior_log_variance):
    spread = np.exp(log_variance) + (mean - prior_mean) ** 2
    logarithms = prior_log_variance - log_variance
    return 0.5 * (logarithms + spread / np.exp(prior_log_variance) - 1).mean(axis=1)


# %% kl_normals: half the square
def kl_normals(mean, log_variance, prior_mean, prior_log_variance):
    spread = np.exp(log_variance) + (mean - prior_mean) ** 2
    logarithms = prior_log_variance - log_variance
    return (logarithms + spread / np.exp(prior_log_variance) - 1).sum(axis=1)


# %% kl_normals: from a distribution to itself it is 0
def kl_normals(mean, log_variance, prior_mean, prior_log_variance):
    spread = np.exp(log_variance) + (mean - prior_mean) ** 2
    logarithms = prior_log_variance - log_variance
    return 0.5 * (logarithms + spread / np.exp(prior_log_variance)).sum(axis=1)


# %% kl_normals: exp(s) is the variance
def kl_normals(mean, log_variance, prior_mean, prior_log_variance):
    variance, prior_variance = np.exp(2 * log_variance), np.exp(2 * prior_log_variance)
    spread = (variance + (mean - prior_mean) ** 2) / prior_variance
    return 0.5 * (np.log(prior_variance / variance) + spread - 1).sum(axis=1)


# %% kl_normals: divide by exp(prior_log_variance)
def kl_normals(mean, log_variance, prior_mean, prior_log_variance):
    logarithms = prior_log_variance - log_variance
    spread = np.exp(-logarithms) + (mean - prior_mean) ** 2
    return 0.5 * (logarithms + spread - 1).sum(axis=1)


# %% kl_normals: from q to p
def kl_normals(mean, log_variance, prior_mean, prior_log_variance):
    logarithms = log_variance - prior_log_variance
    spread = np.exp(-logarithms) + (mean - prior_mean) ** 2 / np.exp(prior_log_variance)
    return 0.5 * (logarithms + spread - 1).sum(axis=1)


# %% tighter_bound: divide the sum by k
def tighter_bound(log_weights):
    return np.logaddexp.reduce(log_weights, axis=1)


# %% tighter_bound: in each row
def tighter_bound(log_weights):
    return np.logaddexp.reduce(log_weights, axis=0) - np.log(log_weights.shape[0])


# %% tighter_bound: not the mean of the logarithms
def tighter_bound(log_weights):
    return log_weights.mean(axis=1)


# %% tighter_bound: subtract its largest number before exp
def tighter_bound(log_weights):
    return np.log(np.exp(log_weights).mean(axis=1))


# %% tighter_bound: in each row, subtract its largest number
def tighter_bound(log_weights):
    largest = log_weights.max()
    return largest + np.log(np.exp(log_weights - largest).mean(axis=1))


# %% tighter_bound: five equal weights have this weight as their mean
def tighter_bound(log_weights):
    largest = log_weights.max(axis=1, keepdims=True)
    return np.log(np.exp(log_weights - largest).mean(axis=1))
