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


@dataclass(frozen=True)
class Winner:
    """The candidate that is the most accurate on validation, and how it stands on test.

    Attributes:
        dim: what is cut.
        points: gain against the baseline on test, in points.
        interval: 95%, which accounts for the choice.
        again: how often it would be chosen, were seeds and examples drawn again.
        rivals: the others, the next best on validation first: ``Dimension``, ``Ahead (points)`` (the winner's test
            accuracy less theirs) with ``95% low`` and ``95% high``, and ``p (Holm)``.
        test: what p is of.
        seeds: how many.
    """

    dim: str
    points: float
    interval: Interval
    again: float
    rivals: pd.DataFrame
    test: str
    seeds: int

    @property
    def decided(self) -> bool:
        """Whether it is ahead of the next best by more than noise."""
        return self.rivals.empty or bool(self._ahead(self.rivals.head(1)).all())

    @property
    def not_told_apart(self) -> list[str]:
        """The candidates that it is not ahead of by more than noise."""
        return list(self.rivals.loc[~self._ahead(self.rivals), "Dimension"])

    @staticmethod
    def _ahead(rivals: pd.DataFrame) -> pd.Series:
        return rivals["p (Holm)"].lt(ALPHA) & rivals["Ahead (points)"].gt(0)


def winner(dims: Sequence[str], validation: np.ndarray, test: np.ndarray, paired: bool) -> Winner:
    """The best of some candidates on validation.

    Args:
        dims: their names.
        validation: whether their predictions are right, in points ``(candidates, seeds, validation examples)``.
        test: what they gain against the baseline, in points ``(candidates, seeds, test examples)``.
        paired: whether a test example's gains are those of one model, so that McNemar's exact test is one of them.
    """
    quality, gains = validation.mean(axis=(1, 2)), test.mean(axis=(1, 2))
    order = np.argsort(-quality, kind="stable")
    first, seeds = int(order[0]), test.shape[1]
    off, wrong = errors_again(validation, test)
    chosen = (quality + off).argmax(axis=1)
    low, high = np.quantile(wrong[np.arange(len(wrong)), chosen], [ALPHA / 2, 1 - ALPHA / 2])
    ahead = {dims[other]: test[first] - test[other] for other in order[1:]}
    found = [crossed(each) for each in ahead.values()]
    exact = paired and seeds == 1
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
        points=float(gains[first]),
        interval=(float(gains[first] - high), float(gains[first] - low)),
        again=float(np.mean(chosen == first)),
        rivals=pd.DataFrame(rivals),
        test=MCNEMAR if exact else CROSSED,
        seeds=seeds,
    )
