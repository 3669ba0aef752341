"""Statistics against scipy, statsmodels and scikit-learn used directly, and against planted effects."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score
from statsmodels.stats.weightstats import DescrStatsW

from encoder_reduction.comparison import significance
from encoder_reduction.comparison.changes import SAVINGS, changes, gains_by_dimension
from encoder_reduction.comparison.sensitivity import ranking


def predictions(labels, right):
    """A table of predictions that are right where ``right`` says so."""
    return pd.DataFrame({"id": range(len(labels)), "label": labels, "prediction": np.where(right, labels, 1 - labels)})


def two_models(rng, examples, baseline, loss):
    """Predictions of a baseline of this accuracy and of a reduction that loses ``loss`` of it, correlated."""
    labels, draw = rng.integers(0, 2, examples), rng.random(examples)
    noise = np.where(rng.random(examples) < 0.1, rng.random(examples), draw)
    return predictions(labels, draw < baseline), predictions(labels, noise < baseline - loss)


def test_mcnemar_is_the_exact_binomial_test_of_the_disagreements():
    rng = np.random.default_rng(1)
    first, second = rng.random(500) < 0.8, rng.random(500) < 0.75
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue
    assert significance.exact_p(second.astype(float) - first) == pytest.approx(expected, abs=1e-9)
    assert significance.exact_p(np.zeros(5)) == 1


def test_over_seeds_the_test_is_the_sign_test_of_the_mean_gains():
    rng = np.random.default_rng(8)
    gain = rng.choice([-1, -1 / 3, 0, 1 / 3, 1], 300, p=[0.1, 0.1, 0.6, 0.1, 0.1])
    expected = stats.binomtest(int((gain > 0).sum()), int((gain != 0).sum()), 0.5).pvalue
    assert significance.exact_p(gain) == pytest.approx(expected, abs=1e-9)


def test_weighted_f1_is_scikit_learns():
    rng = np.random.default_rng(2)
    labels, guesses = rng.integers(0, 2, (3, 200)), rng.integers(0, 2, (3, 200))
    expected = [f1_score(a, b, average="weighted") for a, b in zip(labels, guesses, strict=True)]
    assert significance.weighted_f1(2 * labels + guesses) == pytest.approx(expected, abs=1e-9)
    assert significance.weighted_f1(np.full(5, 2)) == 0


def test_holm_steps_down():
    p = [0.01, 0.04, np.nan, 0.03, 0.005]
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, each at least the one before.
    assert significance.holm(p) == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], abs=1e-9, nan_ok=True)
    assert np.isnan(significance.holm([np.nan])).all()


def test_the_interval_over_seeds_is_students():
    values = [0.80, 0.82, 0.79, 0.83]
    assert significance.t_interval(values) == pytest.approx(DescrStatsW(values).tconfint_mean(), abs=1e-9)


def test_the_bootstrap_interval_is_that_of_the_mean_of_differences():
    baseline, reduced = two_models(np.random.default_rng(3), 400, 0.8, 0.05)
    found = significance.difference([baseline], [reduced])
    gains = (reduced["prediction"] == reduced["label"]).astype(float) - (baseline["prediction"] == baseline["label"])
    expected = stats.bootstrap(
        (gains,), np.mean, n_resamples=2000, method="percentile", batch=100, rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.accuracy == pytest.approx(100 * gains.mean(), abs=1e-9)
    assert found.accuracy_interval == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)
    assert found.seed_interval is None


def test_examples_are_matched_by_id_and_seeds_are_averaged():
    rng = np.random.default_rng(4)
    baseline, reduced = two_models(rng, 300, 0.8, 0.1)
    shuffled = reduced.sample(frac=1, random_state=0).iloc[:250]  # fifty examples are missing
    kept = baseline["id"].isin(shuffled["id"])
    found = significance.difference([baseline], [shuffled])
    again = significance.difference([baseline[kept]], [reduced[kept]])
    assert found.accuracy == pytest.approx(again.accuracy, abs=1e-9)
    twice = significance.difference([baseline, baseline], [reduced, baseline])
    once = significance.difference([baseline], [reduced])
    assert twice.accuracy == pytest.approx(once.accuracy / 2, abs=1e-9)
    assert twice.seed_interval == pytest.approx(significance.t_interval([once.accuracy, 0.0]), abs=1e-9)


PLANTED = {"heads": 0.0, "hidden": 0.12, "layers": 0.06}


def planted_store(rng, examples=200, accuracy=0.85):
    """The rows and predictions of two models whose reductions lose what is planted, on one draw of test examples."""
    labels, difficulty = rng.integers(0, 2, examples), rng.random(examples)
    rows, stored = [], {}
    for model in ("bert", "roberta"):
        for dim, loss in {"none": 0.0, **PLANTED}.items():
            own = np.where(rng.random(examples) < 0.1, rng.random(examples), difficulty)
            right = own < accuracy - loss
            stored[run_id := f"{model}-{dim}"] = predictions(labels, right)
            rows.append({"model": model, "checkpoint": model, "config": dim, "dim": dim, "run_ids": {"42": run_id},
                         "accuracy": right.mean(), "f1": right.mean()})  # fmt: skip
    return pd.DataFrame(rows).assign(**dict.fromkeys(SAVINGS, 1.0)), stored


@pytest.mark.slow
def test_over_200_stores_intervals_ranking_and_decisions_are_the_planted_ones():
    """Nominally 95% of the intervals hold what is planted, and a false difference is found in 5% of the stores."""
    rng = np.random.default_rng(5)
    covered, covered_on_average, first, false, found = [], [], 0, 0, []
    for _ in range(200):
        rows, stored = planted_store(rng)
        table = changes(rows, pd.DataFrame(), stored)
        truth = -100 * table["Dimension"].map(PLANTED)
        covered += list((table["95% low"] <= truth) & (truth <= table["95% high"]))
        beyond_noise = table["p (Holm)"].lt(0.05)
        false += beyond_noise[table["Dimension"].eq("heads")].any()
        found += list(beyond_noise[table["Dimension"].eq("hidden")])
        order = ranking(table, gains_by_dimension(rows, stored))
        truth = -100 * order["Dimension"].map(PLANTED)
        covered_on_average += list((order["95% low"] <= truth) & (truth <= order["95% high"]))
        first += order["Dimension"].tolist() == ["hidden", "layers", "heads"]
    assert 0.92 <= np.mean(covered) <= 0.98
    assert 0.92 <= np.mean(covered_on_average) <= 0.98
    assert false <= 16  # 5% of 200, chance allowed for
    assert np.mean(found) > 0.8
    assert first > 180


def test_resampled_means_spread_as_the_standard_error_says():
    values = np.random.default_rng(6).random((800, 2))
    means = significance.resampled_means(values)
    assert means.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=0.001)
    assert means.std(axis=0) == pytest.approx(stats.sem(values), rel=0.1)
