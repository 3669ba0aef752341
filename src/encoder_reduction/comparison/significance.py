"""Whether a reduction differs from its baseline by more than chance, on the test examples that both predicted.

One test split is a sample of texts. Both models saw the same ones, so their predictions are compared
example by example: McNemar's exact test (McNemar 1947; Dietterich 1998, section 3.1) for accuracy, a paired
bootstrap (Efron & Tibshirani 1993) for intervals, Holm's correction for the number of comparisons. What
another seed of training would have given is a different question, answered over seeds alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

ALPHA = 0.05

_RESAMPLES = 2000
_BATCH = 100

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Difference:
    """A reduction minus its baseline, in points (hundredths) of the test split.

    Attributes:
        accuracy: mean over the seeds that both have.
        accuracy_interval: 95% paired bootstrap over the examples.
        f1: the same for weighted F1.
        f1_interval: likewise.
        p: :func:`exact_p` over the examples.
        seeds: how many seeds both have.
        seed_interval: 95% t interval of the accuracy difference over the seeds, ``None`` for one seed.
    """

    accuracy: float
    accuracy_interval: Interval
    f1: float
    f1_interval: Interval
    p: float
    seeds: int
    seed_interval: Interval | None


def difference(baseline: Sequence[pd.DataFrame], reduced: Sequence[pd.DataFrame]) -> Difference:
    """Compare two models' predictions of the same test examples.

    Args:
        baseline, reduced: one table a seed, in the same order of seeds, with ``id``, ``label`` and
            ``prediction``; examples that one of them lacks are left out.
    """
    labels, ours, theirs = _aligned(baseline, reduced)
    by_seed = [(o == labels).astype(float) - (t == labels) for o, t in zip(ours, theirs, strict=True)]
    gain = 100 * np.mean(by_seed, axis=0)
    # Two bits an example, label and prediction: all that F1 needs, in a byte.
    codes = [(2 * labels + p).astype(np.uint8) for p in (*ours, *theirs)]

    def f1_gain(rows: np.ndarray) -> np.ndarray:
        scores = [weighted_f1(code[rows]) for code in codes]
        return 100 * (np.mean(scores[: len(ours)], axis=0) - np.mean(scores[len(ours) :], axis=0))

    everything = np.arange(len(labels))
    seeds = [100 * each.mean() for each in by_seed]
    return Difference(
        accuracy=float(gain.mean()),
        accuracy_interval=bootstrap(everything, lambda rows: gain[rows].mean(axis=-1)),
        f1=float(f1_gain(everything)),
        f1_interval=bootstrap(everything, f1_gain),
        p=exact_p(gain),
        seeds=len(seeds),
        seed_interval=t_interval(seeds) if len(seeds) > 1 else None,
    )


def gains(baseline: Sequence[pd.DataFrame], reduced: Sequence[pd.DataFrame]) -> pd.Series:
    """By example id: correct with the reduction minus correct with the baseline, averaged over the seeds."""
    right = [
        [table.set_index("id")["prediction"].eq(table.set_index("id")["label"]).astype(float) for table in tables]
        for tables in (reduced, baseline)
    ]
    return pd.concat([ours - theirs for ours, theirs in zip(*right, strict=True)], axis=1).mean(axis=1, skipna=False)


def exact_p(gain: np.ndarray) -> float:
    """Two-sided p of McNemar's exact test, from what each example ``(n,)`` gained.

    Of gains averaged over several seeds the signs count: McNemar's test is the sign test of one seed.
    """
    better, worse = np.sum(gain > 0), np.sum(gain < 0)
    return float(mcnemar([[0, better], [worse, 0]], exact=True).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p values corrected for their number (Holm 1979); NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=float)
    corrected, known = np.full_like(p, np.nan), ~np.isnan(p)
    if known.any():
        corrected[known] = multipletests(p[known], alpha=ALPHA, method="holm")[1]
    return corrected


def t_interval(values: Sequence[float]) -> Interval:
    """95% Student interval of the mean of at least two values."""
    spread = stats.sem(values)
    if spread == 0:
        return values[0], values[0]
    low, high = stats.t.interval(1 - ALPHA, len(values) - 1, loc=np.mean(values), scale=spread)
    return float(low), float(high)


def resampled_means(values: np.ndarray) -> np.ndarray:
    """Means of the columns ``(examples, columns)`` when the examples are drawn again: ``(resamples, columns)``."""
    rng = np.random.default_rng(0)
    return np.stack([values[rng.integers(len(values), size=len(values))].mean(axis=0) for _ in range(_RESAMPLES)])


def weighted_f1(codes: np.ndarray) -> np.ndarray:
    """F1 averaged over the two classes, weighted by their support, over the last axis.

    Args:
        codes: ``2 * label + prediction`` of each example.
    """
    true_0, false_1, false_0, true_1 = ((codes == code).sum(axis=-1) for code in range(4))
    total = np.zeros(codes.shape[:-1])
    for true, support in ((true_0, true_0 + false_1), (true_1, true_1 + false_0)):
        total += support / codes.shape[-1] * 2 * true / np.maximum(2 * true + false_0 + false_1, 1)
    return total


def bootstrap(rows: np.ndarray, statistic: Statistic) -> Interval:
    """95% percentile interval of a statistic of examples that are drawn again together.

    Args:
        rows: positions ``(n,)`` of the examples.
        statistic: from positions ``(..., n)`` to values ``(...,)``.
    """
    result = stats.bootstrap(
        (rows,),
        lambda rows, axis: statistic(rows),
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _aligned(
    baseline: Sequence[pd.DataFrame], reduced: Sequence[pd.DataFrame]
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Labels ``(n,)`` and, by seed, the predictions of the reduction and of the baseline on these examples."""
    tables = [table.set_index("id") for table in (*baseline, *reduced)]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared.intersection(table.index)
    predictions = [table.loc[shared, "prediction"].to_numpy() for table in tables]
    return tables[0].loc[shared, "label"].to_numpy(), predictions[len(baseline) :], predictions[: len(baseline)]
