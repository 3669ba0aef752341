"""Whether a reduction differs from its baseline by more than chance: of the test examples, and of training.

One test split is a sample of texts and one training run a sample of seeds. "The reduction loses accuracy" claims
that other seeds and other texts would show it too. Every seed's models predict the same texts, so seeds are crossed
with examples, as readers with cases in radiology, and the variance of a mean difference has two parts (Roe & Metz
1997; Hillis 2007): what another draw of seeds would change, with one degree of freedom less than there are seeds,
and what another draw of examples would change beyond that. The error of the mean then is the sum of a Student and a
normal variable, the Behrens-Fisher distribution (Fisher 1935), from which interval and p are read, so that both
agree. Percentiles of resampled seeds and examples (the pigeonhole bootstrap, Owen 2007) estimate the same variance,
but from three seeds know nothing of the tails; one test over the examples alone takes the seeds' luck for an effect.

One seed says nothing of seeds: there McNemar's exact test (McNemar 1947; Dietterich 1998, section 3.1), which is the
sign-flip permutation test of the gains, speaks of other texts for these very runs. Holm's correction (1979) is for
the number of comparisons. F1 is no mean over examples; its jackknife pseudovalues take their place (Dorfman,
Berbaum & Metz 1992).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, special
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

ALPHA = 0.05
MCNEMAR = "McNemar's exact test"
CROSSED = "Behrens-Fisher test over seeds and examples"

_DRAWS = 10_000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds and test examples, and how sure it is.

    Attributes:
        mean: over both.
        seed_variance: of this mean, from the draw of the seeds; none of one seed, which cannot tell.
        example_variance: of this mean, from the draw of the examples, beyond what is in the former.
        seeds: how many.
    """

    mean: float
    seed_variance: float
    example_variance: float
    seeds: int

    @property
    def p(self) -> float:
        """Two-sided p of a mean of zero."""
        return self._beyond(abs(self.mean))

    @property
    def interval(self) -> Interval:
        """95% confidence interval: the means that p does not rule out."""
        by_seeds = special.stdtrit(max(self.seeds - 1, 1), 1 - ALPHA / 2) * np.sqrt(self.seed_variance)
        by_examples = special.ndtri(1 - ALPHA / 2) * np.sqrt(self.example_variance)
        most = by_seeds + by_examples
        half = optimize.brentq(lambda width: self._beyond(width) - ALPHA, 0, 2 * most) if most else 0.0
        return self.mean - half, self.mean + half

    def _beyond(self, width: float) -> float:
        """How probable an error of at least this size is: a normal tail, averaged over what the seeds' variance may be.

        A Student variable is a normal one whose variance is divided by a chi-squared variable over its degrees of
        freedom; the average over this one is a sum over equal steps of its logarithm.
        """
        if not self.seed_variance + self.example_variance:
            return float(width == 0)
        degrees = max(self.seeds - 1, 1)
        logarithm = np.linspace(-40, 6, 800)
        weights = np.exp(degrees / 2 * (logarithm - np.exp(logarithm)))
        spread = np.sqrt(self.seed_variance / np.exp(logarithm) + self.example_variance)
        return float(np.average(2 * special.ndtr(-width / spread), weights=weights))


@dataclass(frozen=True)
class Difference:
    """A reduction minus its baseline, in points (hundredths) of the test split.

    Attributes:
        accuracy: mean over the seeds that both have, and the examples.
        f1: the same for weighted F1.
        p: of the accuracy, by ``test``; not corrected.
        test: :data:`CROSSED`, or :data:`MCNEMAR` for one seed.
    """

    accuracy: Estimate
    f1: Estimate
    p: float
    test: str


def difference(baseline: Sequence[pd.DataFrame], reduced: Sequence[pd.DataFrame]) -> Difference:
    """Compare two models' predictions of the same test examples.

    Args:
        baseline, reduced: one table a seed, in the same order of seeds, with ``id``, ``label`` and
            ``prediction``; examples that one of them lacks are left out.
    """
    tables = [table.set_index("id") for table in (*baseline, *reduced)]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared.intersection(table.index)
    labels = tables[0].loc[shared, "label"].to_numpy()
    predictions = np.array([table.loc[shared, "prediction"] for table in tables])
    return difference_of(labels, predictions[: len(baseline)], predictions[len(baseline) :])


def difference_of(labels: np.ndarray, theirs: np.ndarray, ours: np.ndarray) -> Difference:
    """The same, of arrays.

    Args:
        labels: ``(examples,)``, 0 or 1.
        theirs, ours: predictions of the baseline and of the reduction ``(seeds, examples)``.
    """
    gained = (ours == labels).astype(float) - (theirs == labels)
    accuracy = crossed(100 * gained)
    f1 = weighted_f1(_counts(labels, ours)).mean() - weighted_f1(_counts(labels, theirs)).mean()
    values = 100 * (_f1_pseudovalues(labels, ours) - _f1_pseudovalues(labels, theirs))
    one = len(gained) == 1
    return Difference(
        accuracy=accuracy,
        f1=crossed(values, 100 * float(f1)),
        p=exact_p(gained[0]) if one else accuracy.p,
        test=MCNEMAR if one else CROSSED,
    )


def crossed(values: np.ndarray, mean: float | None = None) -> Estimate:
    """The mean of values ``(seeds, examples)``, or the statistic ``mean`` whose pseudovalues they are."""
    by_seeds, by_examples = _covariances(values[np.newaxis])
    mean = float(values.mean()) if mean is None else mean
    return Estimate(mean, by_seeds.item(), by_examples.item(), len(values))


def drawn_again(values: np.ndarray) -> np.ndarray:
    """Means ``(draws, columns)`` of ``(columns, seeds, examples)`` as other seeds and examples may have given them."""
    return values.mean(axis=(1, 2)) + errors_again(values)[0]


def errors_again(*splits: np.ndarray) -> list[np.ndarray]:
    """How far off the means of ``(columns, seeds, examples)`` may be, by split ``(draws, columns)``.

    Other seeds would move the means of all splits together, other examples those of their own split.
    """
    rng, seeds = np.random.default_rng(0), splits[0].shape[1]
    by_seed = np.concatenate([values.mean(axis=2) for values in splits])
    spread = np.cov(by_seed, ddof=1) / seeds if seeds > 1 else np.zeros((len(by_seed), len(by_seed)))
    by_seeds, degrees = _normal(rng, np.atleast_2d(spread)), max(seeds - 1, 1)
    by_examples = [_normal(rng, _covariances(values)[1]) for values in splits]
    student = by_seeds / np.sqrt(rng.chisquare(degrees, (_DRAWS, 1)) / degrees)
    of_splits = np.split(student, np.cumsum([len(values) for values in splits])[:-1], axis=1)
    return [both[0] + both[1] for both in zip(of_splits, by_examples, strict=True)]


def _normal(rng: np.random.Generator, covariance: np.ndarray) -> np.ndarray:
    return rng.multivariate_normal(np.zeros(len(covariance)), covariance, _DRAWS, check_valid="ignore")


def gain(baseline: pd.DataFrame, reduced: pd.DataFrame) -> pd.Series:
    """By example id: correct with the reduction minus correct with the baseline."""
    return right(reduced) - right(baseline)


def right(predictions: pd.DataFrame) -> pd.Series:
    """By example id: 1 where a prediction is correct, else 0."""
    return predictions["prediction"].eq(predictions["label"]).astype(float).set_axis(predictions["id"])


def exact_p(gain: np.ndarray) -> float:
    """Two-sided p of McNemar's exact test, from what each example ``(n,)`` gained in one seed: -1, 0 or 1."""
    better, worse = np.sum(gain > 0), np.sum(gain < 0)
    return float(mcnemar([[0, better], [worse, 0]], exact=True).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p values corrected for their number (Holm 1979); NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=float)
    corrected, known = np.full_like(p, np.nan), ~np.isnan(p)
    if known.any():
        corrected[known] = multipletests(p[known], alpha=ALPHA, method="holm")[1]
    return corrected


def weighted_f1(counts: np.ndarray) -> np.ndarray:
    """F1 averaged over the two classes, weighted by their support.

    Args:
        counts: how many examples ``(..., 4)`` have each ``2 * label + prediction``.
    """
    true_0, false_1, false_0, true_1 = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    total = true_0 + false_1 + false_0 + true_1
    score = np.zeros_like(total)
    for true, support in ((true_0, true_0 + false_1), (true_1, true_1 + false_0)):
        score += support / total * 2 * true / np.maximum(2 * true + false_0 + false_1, 1)
    return score


def _f1_pseudovalues(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Jackknife pseudovalues of the weighted F1 ``(seeds, examples)``: their mean is F1, but for its bias."""
    counts, examples = _counts(labels, predictions), len(labels)
    without = weighted_f1(counts[:, np.newaxis] - np.eye(4))
    pseudo = examples * weighted_f1(counts)[:, np.newaxis] - (examples - 1) * without
    return np.take_along_axis(pseudo, 2 * labels + predictions, axis=1)


def _counts(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """How many examples of each seed have each ``2 * label + prediction``: ``(seeds, 4)``, all that F1 needs."""
    return np.array([np.bincount(codes, minlength=4) for codes in 2 * labels + predictions])


def _covariances(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariances of the means of ``(columns, seeds, examples)`` by the seeds, and by the examples beyond these.

    The expected mean square between seeds holds the seeds' variance and the residual's, that between examples the
    examples' and the residual's; the residual counts once, with the seeds.
    """
    _, seeds, examples = values.shape
    centred = values - values.mean(axis=(1, 2), keepdims=True)
    by_seed, by_example = centred.mean(axis=2), centred.mean(axis=1)
    between_examples = by_example @ by_example.T / (examples - 1)
    if seeds == 1:
        return np.zeros_like(between_examples), between_examples / examples
    between_seeds = by_seed @ by_seed.T / (seeds - 1)
    flat = (centred - by_seed[:, :, np.newaxis] - by_example[:, np.newaxis]).reshape(len(values), -1)
    residual = flat @ flat.T / ((seeds - 1) * (examples - 1))
    sizes, axes = np.linalg.eigh(between_examples - residual / seeds)
    return between_seeds / seeds, (axes * np.maximum(sizes, 0)) @ axes.T / examples
