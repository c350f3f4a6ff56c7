"""Comparing models on the same splits."""

from labkit.compare import paired

import numpy as np
import pytest
from scipy import stats


def test_paired_is_the_t_interval_of_the_differences():
    values = {"old": [3.0, 5.0, 4.0, 6.0], "new": [2.0, 4.5, 3.5, 4.0]}
    table = paired(values, "old", test_to_train=0.0)
    interval = stats.ttest_rel(values["new"], values["old"]).confidence_interval(0.95)
    difference, margin = table.loc["new", ["difference", "95 % margin ±"]]
    assert (difference - margin, difference + margin) == pytest.approx(interval)
    assert table.loc["new", "better on"] == "4 of 4"
    assert list(table.index) == ["new"]


def test_shared_rows_widen_the_margin():
    values = {"old": [3.0, 5.0, 4.0, 6.0], "new": [2.0, 4.5, 3.5, 4.0]}
    narrow, wide = (paired(values, "old", share)["95 % margin ±"]["new"] for share in (0.0, 1 / 3))
    assert wide / narrow == pytest.approx(np.sqrt((1 / 4 + 1 / 3) / (1 / 4)))


@pytest.mark.parametrize(
    ("change", "higher_is_better", "verdict"),
    [
        ([1.0, 1.1, 0.9], False, "is worse than old"),
        ([1.0, 1.1, 0.9], True, "is better than old"),
        ([-1.0, -1.1, -0.9], False, "is better than old"),
        ([-1.0, -1.1, -0.9], True, "is worse than old"),
        ([1.0, -1.1, 0.1], True, "cannot be told from old"),
        ([0.0, 0.0, 0.0], True, "cannot be told from old"),
    ],
)
def test_verdict(change, higher_is_better, verdict):
    old = [3.0, 5.0, 4.0]
    table = paired({"old": old, "new": np.add(old, change)}, "old", 1 / 3, higher_is_better)
    assert table.loc["new", "verdict"] == verdict


def test_paired_needs_pairs():
    with pytest.raises(ValueError, match="two or more splits"):
        paired({"old": [1.0], "new": [2.0]}, "old", 0.0)
    with pytest.raises(ValueError, match="two or more splits"):
        paired({"old": [1.0, 2.0], "new": [2.0]}, "old", 0.0)
