# %% unfreeze_from: normalisation does not
def unfreeze_from(network, name):
    learns = False
    for layer in network.layers:
        learns = learns or layer.name == name
        layer.trainable = learns
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


# %% unfreeze_from: those before the layer must not count
def unfreeze_from(network, name):
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


# %% unfreeze_from: those before the layer must not count
def unfreeze_from(network, name):
    learns = False
    for layer in network.layers:
        learns = learns or layer.name == name
        layer.trainable = learns and not isinstance(layer, layers.BatchNormalization)
    return network.count_params()


# %% unfreeze_from: each layer from here on learns, also if it was frozen before
def unfreeze_from(network, name):
    for layer in network.layers:
        if layer.name == name:
            break
        layer.trainable = False
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


# %% unfreeze_from: each layer from here on learns
def unfreeze_from(network, name):
    learns = False
    for layer in network.layers:
        layer.trainable = learns and not isinstance(layer, layers.BatchNormalization)
        learns = learns or layer.name == name
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


# %% unfreeze_from: wherever it stands, also if it did before
def unfreeze_from(network, name):
    learns = False
    for layer in network.layers:
        learns = learns or layer.name == name
        if not learns:
            layer.trainable = False
        elif not isinstance(layer, layers.BatchNormalization):
            layer.trainable = True
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


# %% stored_mean: the stored mean is multiplied by the momentum
def stored_mean(mean, batch_means, momentum):
    for batch_mean in batch_means:
        mean = (1 - momentum) * mean + momentum * batch_mean
    return mean


# %% stored_mean: go through the batches in their order
def stored_mean(mean, batch_means, momentum):
    return momentum * mean + (1 - momentum) * np.mean(batch_means)


# %% stored_mean: from the mean that was stored before
def stored_mean(mean, batch_means, momentum):
    for batch_mean in batch_means[::-1]:
        mean = momentum * mean + (1 - momentum) * batch_mean
    return mean


# %% stored_mean: the stored mean is multiplied by the momentum
def stored_mean(mean, batch_means, momentum):
    mean = 0.0
    for batch_mean in batch_means:
        mean = momentum * mean + (1 - momentum) * batch_mean
    return mean


# %% vote: the largest similarity is nearest
def vote(features, labels, query, k):
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(query)
    nearest = np.argsort(features @ query / lengths)[:k]
    return int(np.bincount(labels[nearest]).argmax())


# %% vote: lengths do not count, only directions
def vote(features, labels, query, k):
    nearest = np.argsort(features @ query)[::-1][:k]
    return int(np.bincount(labels[nearest]).argmax())


# %% vote: lengths do not count, only directions
def vote(features, labels, query, k):
    nearest = np.argsort(np.linalg.norm(features - query, axis=1))[:k]
    return int(np.bincount(labels[nearest]).argmax())


# %% vote: all k neighbours vote
def vote(features, labels, query, k):
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(query)
    return int(labels[np.argmax(features @ query / lengths)])


# %% vote: of several winners take the smallest label
def vote(features, labels, query, k):
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(query)
    nearest = np.argsort(features @ query / lengths)[::-1][:k]
    votes = np.bincount(labels[nearest])
    return int(np.flatnonzero(votes == votes.max())[-1])


# %% soften: the probabilities of each photo have the sum 1
def soften(probabilities, temperature):
    return probabilities ** (1 / temperature)


# %% soften: T = 2 takes square roots
def soften(probabilities, temperature):
    powers = probabilities**temperature
    return powers / powers.sum(axis=1, keepdims=True)


# %% soften: T = 2 takes square roots
def soften(probabilities, temperature):
    powers = np.exp(probabilities / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


# %% soften: there may be more than two
def soften(probabilities, temperature):
    first, second = (p ** (1 / temperature) for p in (probabilities, 1 - probabilities))
    return first / (first + second)


# %% soften: the probabilities of each photo have the sum 1
def soften(probabilities, temperature):
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum()
