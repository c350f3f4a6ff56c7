# %% binary_cross_entropy: the logarithm is the natural one
def binary_cross_entropy(answers, p):
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -np.mean(answers * np.log10(p) + (1 - answers) * np.log10(1 - p))


# %% binary_cross_entropy: the logarithm is the natural one, and the result a mean
def binary_cross_entropy(answers, p):
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -np.sum(answers * np.log(p) + (1 - answers) * np.log(1 - p))


# %% binary_cross_entropy: a no costs
def binary_cross_entropy(answers, p):
    return -np.mean(answers * np.log(np.clip(p, 1e-7, 1 - 1e-7))) * len(answers) / answers.sum()


# %% binary_cross_entropy: a yes costs
def binary_cross_entropy(answers, p):
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -np.mean((1 - answers) * np.log(p) + answers * np.log(1 - p))


# %% binary_cross_entropy: keep p away from 0 and 1
def binary_cross_entropy(answers, p):
    return -np.mean(np.log(np.where(answers == 1, p, 1 - p)))


# %% multi_hot: one place for each category and one for none
def multi_hot(types, categories):
    return np.array([types.count(name) for name in categories])


# %% multi_hot: a missing type has a place of its own
def multi_hot(types, categories):
    return np.array([types.count(name) for name in categories] + [0])


# %% multi_hot: in the order of the categories
def multi_hot(types, categories):
    return np.array([types.count(None)] + [types.count(name) for name in categories])


# %% multi_hot: codes are added
def multi_hot(types, categories):
    return np.array([float(name in types) for name in [*categories, None]])


# %% accuracy_from_logits: compare logits with a logit
def accuracy_from_logits(answers, z, threshold=0.5):
    return np.mean((z > threshold) == (answers == 1))


# %% accuracy_from_logits: p > 0.9 means
def accuracy_from_logits(answers, z, threshold=0.5):
    return np.mean((z > 0) == (answers == 1))


# %% accuracy_from_logits: below z = 0 the answer is no
def accuracy_from_logits(answers, z, threshold=0.5):
    p = 1 / (1 + np.exp(-1 / (1 + np.exp(-z))))
    return np.mean((p > threshold) == (answers == 1))


# %% accuracy_from_logits: a right no counts, too
def accuracy_from_logits(answers, z, threshold=0.5):
    says_yes = z > np.log(threshold / (1 - threshold))
    return np.mean(says_yes * answers)
