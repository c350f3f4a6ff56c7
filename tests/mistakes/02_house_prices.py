# %% percent_error: divide the mean error by the mean of the truth
def percent_error(truth, guess):
    return 100 * np.mean(np.abs(truth - guess) / truth)


# %% percent_error: the mean in the denominator is the truth's
def percent_error(truth, guess):
    order = np.mean(truth) <= np.mean(guess)
    return 100 * np.mean(np.abs(truth - guess)) / np.mean(truth if order else guess)


# %% percent_error: errors must not cancel
def percent_error(truth, guess):
    return 100 * abs(np.mean(truth - guess)) / np.mean(truth)


# %% percent_error: divide the mean error by the mean of the truth
def percent_error(truth, guess):
    return np.mean(np.abs(truth - guess)) / np.mean(truth)


# %% standardize_both: the test rows take mean and deviation of the training rows
def standardize_both(train, test):
    both = np.concatenate([train, test])
    own = (train - train.mean(axis=0)) / train.std(axis=0)
    return own, (test - both.mean(axis=0)) / both.std(axis=0)


# %% standardize_both: each column has its own mean and deviation
def standardize_both(train, test):
    return (train - train.mean()) / train.std(), (test - train.mean()) / train.std()


# %% standardize_both: return two arrays
def standardize_both(train, test):
    return ((train - train.mean(axis=0)) / train.std(axis=0),)


# %% penalised_loss: sum the squares of every weight
def penalised_loss(truth, guess, kernels, strength):
    return np.mean(np.abs(truth - guess)) + strength * np.sum(kernels[0] ** 2)


# %% penalised_loss: without a penalty the loss is the MAE
def penalised_loss(truth, guess, kernels, strength):
    return np.mean((truth - guess) ** 2) + strength * sum(np.sum(w**2) for w in kernels)


# %% penalised_loss: sum the squares of every weight
def penalised_loss(truth, guess, kernels, strength):
    return np.mean(np.abs(truth - guess)) + strength * sum(np.sum(np.abs(w)) for w in kernels)


# %% penalised_loss: multiply the sum, not each weight
def penalised_loss(truth, guess, kernels, strength):
    return np.mean(np.abs(truth - guess)) + sum(np.sum((strength * w) ** 2) for w in kernels)
