"""Exercises that check themselves: a hint for the student, an error for the grader."""

from labkit.results import switched_on

import numpy as np


class Exercise:
    """Check attempts inside a `with` block; see `Run.exercise`.

    `check(actual, expected, hint)` compares numbers, arrays or texts. An untouched stub returns
    `None` or `...`: that is "not attempted". When graded (`LABS_GRADE`, or by nbgrader's autograde)
    anything but a right answer raises `AssertionError`; otherwise it is only printed, and the
    notebook goes on.
    """

    def __init__(self, *attempts):
        self.attempts = attempts

    def __enter__(self):
        return self.check

    def check(self, actual, expected, hint: str, tolerance: float = 1e-5) -> None:
        """Compare an answer with the right one, within `tolerance`, relative and absolute.

        Raises `NotAttemptedError` for nothing, `AssertionError` with the hint for a wrong answer.
        """
        if actual is None or actual is ...:
            raise NotAttemptedError
        if not _equal(actual, expected, tolerance):
            raise AssertionError(f"{hint}\n  yours: {_short(actual)}\n  right: {_short(expected)}")

    def __exit__(self, kind, error, trace):
        names = ", ".join(getattr(attempt, "__name__", str(attempt)) for attempt in self.attempts)
        if kind is None:
            print(f"{names}: right.")
            return True
        if not issubclass(kind, Exception):
            return False
        if kind is NotAttemptedError:
            message = f"{names}: not attempted yet (it returns nothing; is a `return` missing?)."
        elif kind is AssertionError:
            message = f"{names}: not yet right. {error}"
        else:
            message = f"{names}: your code raises {kind.__name__}: {error}"
        if _graded():
            raise AssertionError(message) from error
        print(message)
        return True


class NotAttemptedError(Exception):
    """The stub of the exercise is as it was handed out."""


def _graded() -> bool:
    return switched_on("LABS_GRADE") or switched_on("NBGRADER_EXECUTION")


def _equal(actual, expected, tolerance: float) -> bool:
    """Return whether two answers agree; shapes must agree, too."""
    if isinstance(expected, str | bool):
        return actual == expected
    actual, expected = np.asarray(actual), np.asarray(expected)
    return actual.shape == expected.shape and np.allclose(actual, expected, tolerance, tolerance)


def _short(value) -> str:
    """Return a value in one line."""
    return np.array2string(np.asarray(value), precision=5, threshold=8).replace("\n", "")
