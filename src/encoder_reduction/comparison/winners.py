"""Which of several candidates is taken on validation, and what may be said of it on test once it was chosen.

The luck of the training seeds that made a candidate the best on validation is in its test accuracy too, so that the
best of five looks better than it is, and an interval around it would claim too much. Both splits are drawn again
together (seeds shared by them, examples not), the choice is made anew in each draw, and the interval is that of the
chosen one's errors (nested resampling; Andrews, Kitagawa & McCloskey 2024 on inference on winners). With one seed
nothing is known of seeds, and the examples of the two splits are others: choosing then adds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .significance import ALPHA, CROSSED, MCNEMAR, Interval, crossed, errors_again, exact_p, holm

_EXAMPLES = "normal test over the examples"


@dataclass(frozen=True)
class Winner:
    """The candidate that is the most accurate on validation, and how it stands on test.

    Attributes:
        dim: what is cut.
        models: the models that everything here is an average over.
        gains: of each candidate against the baseline on test, in points.
        interval: 95% of the winner's, which accounts for the choice.
        again: how often it would be chosen, were seeds and examples drawn again.
        rivals: the others, the next best on validation first: ``Dimension``, ``Ahead (points)`` (the winner's test
            accuracy less theirs) with ``95% low`` and ``95% high``, and ``p (Holm)``.
        test: what p is of.
        seeds: how many.
    """

    dim: str
    models: tuple[str, ...]
    gains: pd.Series
    interval: Interval
    again: float
    rivals: pd.DataFrame
    test: str
    seeds: int

    @property
    def points(self) -> float:
        """What the winner gains against the baseline on test."""
        return float(self.gains[self.dim])

    @property
    def decided(self) -> bool:
        """Whether there are others, and it is ahead of each by more than noise."""
        return not (self.rivals.empty or self.not_told_apart or self.better_on_test)

    @property
    def not_told_apart(self) -> list[str]:
        """The candidates whose difference to it is within noise."""
        return list(self.rivals.loc[self.rivals["p (Holm)"].ge(ALPHA), "Dimension"])

    @property
    def told_apart(self) -> list[str]:
        """The candidates that it is ahead of by more than noise."""
        return [each for each in self.rivals["Dimension"] if each not in (*self.not_told_apart, *self.better_on_test)]

    @property
    def better_on_test(self) -> list[str]:
        """The candidates that are ahead of it on test by more than noise, though they were not on validation."""
        beyond = self.rivals["p (Holm)"].lt(ALPHA) & self.rivals["Ahead (points)"].lt(0)
        return list(self.rivals.loc[beyond, "Dimension"])


def winner(dims: Sequence[str], validation: np.ndarray, test: np.ndarray, models: Sequence[str]) -> Winner:
    """The best of some candidates on validation.

    Args:
        dims: their names.
        validation: whether their predictions are right, in points ``(candidates, seeds, validation examples)``.
        test: what they gain against the baseline, in points ``(candidates, seeds, test examples)``.
        models: the models that both are averages over; of one, and one seed, the test is McNemar's.
    """
    order = np.argsort(-validation.mean(axis=(1, 2)), kind="stable")
    first, seeds = int(order[0]), test.shape[1]
    gains = pd.Series(test.mean(axis=(1, 2)), index=list(dims))
    off, wrong = errors_again(validation, test)
    chosen = (validation.mean(axis=(1, 2)) + off).argmax(axis=1)
    low, high = np.quantile(wrong[np.arange(len(wrong)), chosen], [ALPHA / 2, 1 - ALPHA / 2])
    ahead = {dims[other]: test[first] - test[other] for other in order[1:]}
    found = [crossed(each) for each in ahead.values()]
    exact = len(models) == seeds == 1
    p = [exact_p(each[0]) if exact else estimate.p for each, estimate in zip(ahead.values(), found, strict=True)]
    rivals = {
        "Dimension": list(ahead),
        "Ahead (points)": [estimate.mean for estimate in found],
        "95% low": [estimate.interval[0] for estimate in found],
        "95% high": [estimate.interval[1] for estimate in found],
        "p (Holm)": holm(p),
    }
    return Winner(
        dim=dims[first],
        models=tuple(models),
        gains=gains,
        interval=(float(gains.iloc[first] - high), float(gains.iloc[first] - low)),
        again=float(np.mean(chosen == first)),
        rivals=pd.DataFrame(rivals),
        test=MCNEMAR if exact else CROSSED if seeds > 1 else _EXAMPLES,
        seeds=seeds,
    )
