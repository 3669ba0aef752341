"""Test predictions whose true differences, and how much training seeds differ, are known because they were planted."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from encoder_reduction.comparison import significance
from encoder_reduction.comparison.changes import SAVINGS

Judge = Callable[[np.ndarray], tuple[significance.Interval, float]]

MODELS = ("bert", "roberta", "distilbert")
ACCURACY = 0.88
NO_LOSS = {"heads": 0.0, "hidden": 0.0, "layers": 0.0}
# Of each configuration's examples, and of each run's: so any two runs agree on nine of ten.
_OWN, _OWN_OF_RUN = 0.10, 0.12


def right_answers(
    rng: np.random.Generator, examples: int, seeds: int, noise: float, losses: Mapping[str, float] = NO_LOSS
) -> dict[tuple[str, str], np.ndarray]:
    """Which test examples each run gets right, by model and dimension: ``(seeds, examples)``.

    Examples are as hard for all as for one, but for some that are drawn anew for a configuration or a run. Each run's
    accuracy is the planted one plus normal noise.

    Args:
        noise: standard deviation of the accuracy of training runs, in points.
        losses: what each dimension's cut loses of the accuracy; ``none`` is the baseline.
    """
    hardness, found = rng.random(examples, dtype=np.float32), {}
    for model in MODELS:
        for dim, loss in {"none": 0.0, **losses}.items():
            found[model, dim] = _difficulty(rng, hardness, seeds) < _trained(rng, seeds, noise, loss)
    return found


def two_splits(
    rng: np.random.Generator, examples: Mapping[str, int], seeds: int, noise: float, losses: Mapping[str, float]
) -> dict[str, dict[str, np.ndarray]]:
    """The same of one model and several splits: a run that was lucky is so on all of them."""
    reached = {dim: _trained(rng, seeds, noise, loss) for dim, loss in {"none": 0.0, **losses}.items()}
    found = {}
    for split, count in examples.items():
        hardness = rng.random(count, dtype=np.float32)
        found[split] = {dim: _difficulty(rng, hardness, seeds) < own for dim, own in reached.items()}
    return found


def _trained(rng: np.random.Generator, seeds: int, noise: float, loss: float) -> np.ndarray:
    """The accuracy that training runs of several seeds reach ``(seeds, 1)``."""
    return ACCURACY - loss + noise / 100 * rng.standard_normal((seeds, 1))


def _difficulty(rng: np.random.Generator, hardness: np.ndarray, seeds: int) -> np.ndarray:
    """The accuracy above which a configuration's runs get each example right ``(seeds, examples)``; some drawn anew."""
    anew, redrawn = rng.random((2, len(hardness)), dtype=np.float32)
    own = np.where(anew < _OWN, redrawn, hardness)
    draw = rng.random((seeds, len(hardness)), dtype=np.float32)
    return np.where(draw < _OWN_OF_RUN, draw / np.float32(_OWN_OF_RUN), own)


def gains(right: Mapping[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """In points, by model and cut dimension: ``(seeds, examples)``."""
    return {
        (model, dim): 100 * (each.astype(float) - right[model, "none"])
        for (model, dim), each in right.items()
        if dim != "none"
    }


def planted_store(
    rng: np.random.Generator, right: Mapping[tuple[str, str], np.ndarray]
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Rows and predictions of runs that are right where ``right`` says so."""
    rows, stored = [], {}
    labels = rng.integers(0, 2, next(iter(right.values())).shape[-1])
    for (model, dim), each in right.items():
        ids = {str(42 + seed): f"{model}-{dim}-{seed}" for seed in range(len(each))}
        stored |= {run_id: predictions(labels, own) for run_id, own in zip(ids.values(), each, strict=True)}
        rows.append({"model": model, "checkpoint": model, "config": dim, "dim": dim, "run_ids": ids,
                     "seeds": len(each), "accuracy": each.mean(), "f1": each.mean()})  # fmt: skip
    return pd.DataFrame(rows).assign(**dict.fromkeys(SAVINGS, 1.0)), stored


def predictions(labels: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """A table of predictions that are right where ``right`` says so."""
    return pd.DataFrame({"id": range(len(labels)), "label": labels, "prediction": np.where(right, labels, 1 - labels)})


def judged_over_seeds_and_examples(gained: np.ndarray) -> tuple[significance.Interval, float]:
    """Interval and p of a difference, as the report gives them."""
    found = significance.crossed(gained)
    return found.interval, significance.exact_p(gained[0]) if len(gained) == 1 else found.p


def judged_over_examples_alone(gained: np.ndarray) -> tuple[significance.Interval, float]:
    """Interval of the mean gain over the seeds and p of its signs: the seeds' luck counts as an effect."""
    mean = gained.mean(axis=0, keepdims=True)
    return significance.crossed(mean).interval, significance.exact_p(mean[0])


def measured(
    rng: np.random.Generator,
    stores: int,
    examples: int,
    seeds: int,
    noise: float,
    judged=judged_over_seeds_and_examples,
) -> tuple[float, float]:
    """How often intervals hold the true difference of zero, and in which share of stores one of nine is called real."""
    held, false = [], 0
    for _ in range(stores):
        found = [judged(each) for each in gains(right_answers(rng, examples, seeds, noise)).values()]
        held += [low <= 0 <= high for (low, high), _ in found]
        false += min(p for _, p in found) < significance.ALPHA / len(found)  # what Holm's first step asks
    return float(np.mean(held)), false / stores
