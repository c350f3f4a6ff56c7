"""Compare models that were measured on the same splits or seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats


def paired(
    values: Mapping[str, Sequence[float]],
    baseline: str,
    test_to_train: float,
    higher_is_better: bool = False,
) -> pd.DataFrame:
    """Return each model's difference to `baseline`: mean, 95 % margin, wins, and a verdict.

    Two models on the same split share its luck, so the difference is taken split by split. Random
    splits share rows, so the usual margin of a mean would promise too much; this one allows for it
    (Nadeau and Bengio, *Inference for the Generalization Error*, 2003).

    Arguments:
        values: model -> one error (or accuracy) for each split, at least two, in the same order.
        baseline: the model that the others are compared with.
        test_to_train: number of test rows divided by the number of training rows of a split; 0
            for seeds or other repetitions that share no rows.
        higher_is_better: whether the values are accuracies or the like.

    Raises `ValueError` when the models have not the same number of splits, or only one.
    """
    n = len(values[baseline])
    if n < 2 or any(len(one) != n for one in values.values()):
        raise ValueError("paired() needs the same two or more splits for every model")
    rows = {}
    for name in values:
        if name != baseline:
            difference = np.subtract(values[name], values[baseline])
            spread = difference.std(ddof=1) * np.sqrt(1 / n + test_to_train)
            margin = stats.t.ppf(0.975, n - 1) * spread
            gain = difference if higher_is_better else -difference
            verdict = "cannot be told from" if abs(gain.mean()) <= margin else "is worse than"
            verdict = "is better than" if gain.mean() > margin else verdict
            wins = f"{(gain > 0).sum()} of {n}"
            rows[name] = [difference.mean(), margin, wins, f"{verdict} {baseline}"]
    columns = ["difference", "95 % margin ±", "better on", "verdict"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
