# %% most_confused: divide each row by its sum
def most_confused(matrix, names):
    mistakes = matrix - np.diag(np.diag(matrix))
    row, column = divmod(mistakes.argmax(), len(names))
    return names[row], names[column], mistakes[row, column] / matrix[row].sum()


# %% most_confused: 0/0 is nan
def most_confused(matrix, names):
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    np.fill_diagonal(shares, 0)
    row, column = divmod(shares.argmax(), len(names))
    return names[row], names[column], shares[row, column]


# %% most_confused: divide each row by its sum
def most_confused(matrix, names):
    shares = matrix / np.maximum(matrix.sum(axis=0, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    row, column = divmod(shares.argmax(), len(names))
    return names[row], names[column], shares[row, column]


# %% most_confused: rows are the true classes
def most_confused(matrix, names):
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    row, column = divmod(shares.argmax(), len(names))
    return names[column], names[row], shares[row, column]


# %% most_confused: the diagonal holds what is right
def most_confused(matrix, names):
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    row, column = divmod(shares.argmax(), len(names))
    return names[row], names[column], shares[row, column]


# %% main_effect: subtract the mean of all rows
def main_effect(table, factor):
    return table.groupby(factor).accuracy.mean().to_dict()


# %% main_effect: not the best or the median
def main_effect(table, factor):
    best = table.groupby(factor).accuracy.max()
    return (best - best.mean()).to_dict()


# %% main_effect: not the best or the median
def main_effect(table, factor):
    medians = table.groupby(factor).accuracy.median()
    return (medians - medians.mean()).to_dict()


# %% main_effect: one entry for each value
def main_effect(table, factor):
    means = table.groupby("letter").accuracy.mean()
    return (means - means.mean()).to_dict()


# %% combinations: the numbers multiply
def combinations(factors):
    rows = zip(*factors.values(), strict=False)
    return [dict(zip(factors, values, strict=True)) for values in rows]


# %% combinations: the last factor changes fastest
def combinations(factors):
    found = [{}]
    for name, values in factors.items():
        found = [{**settings, name: value} for value in values for settings in found]
    return found


# %% combinations: the numbers multiply
def combinations(factors):
    return [{name: value} for name, values in factors.items() for value in values]
