"""Statistics against scipy, statsmodels and scikit-learn used directly, and against planted effects."""

import numpy as np
import pandas as pd
import pytest
from planted import (
    judged_over_examples_alone,
    judged_over_seeds_and_examples,
    measured,
    planted_store,
    predictions,
    right_answers,
)
from scipy import stats
from sklearn.metrics import f1_score

from encoder_reduction.comparison import significance
from encoder_reduction.comparison.changes import changes, gains_by_row
from encoder_reduction.comparison.expectations import expectations
from encoder_reduction.comparison.sensitivity import ranking


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


def test_weighted_f1_is_scikit_learns():
    rng = np.random.default_rng(2)
    labels, guesses = rng.integers(0, 2, (3, 200)), rng.integers(0, 2, (3, 200))
    expected = [f1_score(a, b, average="weighted") for a, b in zip(labels, guesses, strict=True)]
    counts = [np.bincount(2 * a + b, minlength=4) for a, b in zip(labels, guesses, strict=True)]
    assert significance.weighted_f1(np.array(counts)) == pytest.approx(expected, abs=1e-9)
    assert significance.weighted_f1(np.array([0, 0, 5, 0])) == 0


def test_holm_steps_down():
    p = [0.01, 0.04, np.nan, 0.03, 0.005]
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, each at least the one before.
    assert significance.holm(p) == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], abs=1e-9, nan_ok=True)
    assert np.isnan(significance.holm([np.nan])).all()


def test_a_worse_reduction_has_a_negative_difference_in_accuracy_and_f1():
    rng = np.random.default_rng(9)
    pairs = [two_models(rng, 500, 0.85, 0.1) for _ in range(2)]
    baseline, reduced = zip(*pairs, strict=True)
    scores = [
        [f1_score(table["label"], table["prediction"], average="weighted") for table in tables]
        for tables in (baseline, reduced)
    ]
    found = significance.difference([baseline[0]], [reduced[0]])
    assert found.f1.mean == pytest.approx(100 * (scores[1][0] - scores[0][0]), abs=1e-9)
    assert found.f1.interval[1] < 0
    assert found.accuracy.interval[1] < 0


def test_with_one_seed_interval_and_test_are_of_the_examples():
    baseline, reduced = two_models(np.random.default_rng(3), 400, 0.8, 0.05)
    found = significance.difference([baseline], [reduced])
    gains = (reduced["prediction"] == reduced["label"]).astype(float) - (baseline["prediction"] == baseline["label"])
    expected = stats.norm.interval(0.95, 100 * gains.mean(), 100 * stats.sem(gains))
    assert found.accuracy.interval == pytest.approx(expected, abs=1e-6)
    assert found.p == significance.exact_p(gains.to_numpy())
    assert found.test == "McNemar's exact test"


def test_where_only_seeds_differ_interval_and_p_are_students():
    by_seed = np.array([0.3, -0.4, 1.0, 0.7])
    found = significance.crossed(np.repeat(by_seed[:, np.newaxis], 50, axis=1))
    expected = stats.t.interval(0.95, 3, by_seed.mean(), stats.sem(by_seed))
    assert found.interval == pytest.approx(expected, abs=1e-6)
    assert found.p == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue, abs=1e-6)


def test_where_seeds_agree_example_by_example_more_of_them_say_nothing_new():
    gains = np.random.default_rng(7).choice([-1.0, 0.0, 1.0], 300)
    once, thrice = significance.crossed(gains[np.newaxis]), significance.crossed(np.tile(gains, (3, 1)))
    assert thrice.interval == pytest.approx(once.interval, abs=1e-9)


def test_variances_are_those_that_were_planted():
    rng = np.random.default_rng(11)
    seeds, examples = 60, 400
    values = rng.normal(0, 0.5, (seeds, 1)) + rng.normal(0, 3, (1, examples)) + rng.normal(0, 2, (seeds, examples)) + 1
    found = significance.crossed(values)
    assert found.seed_variance == pytest.approx(0.25 / seeds + 4 / (seeds * examples), rel=0.4)
    assert found.example_variance == pytest.approx(9 / examples, rel=0.2)
    # What differs by seed and example alike is counted once, with the seeds.
    alone = significance.crossed(rng.normal(0, 2, (5, 2000)))
    assert alone.example_variance < 0.15 * 4 / (5 * 2000)


def test_the_interval_ends_where_p_reaches_five_percent():
    estimate = significance.Estimate(mean=0.0, seed_variance=0.04, example_variance=0.02, seeds=3)
    _, end = estimate.interval
    at_the_end = significance.Estimate(mean=end, seed_variance=0.04, example_variance=0.02, seeds=3)
    assert at_the_end.p == pytest.approx(0.05, abs=1e-9)
    rng = np.random.default_rng(12)
    drawn = 0.2 * rng.standard_t(2, 400_000) + np.sqrt(0.02) * rng.standard_normal(400_000)
    assert np.mean(np.abs(drawn) > end) == pytest.approx(0.05, abs=0.002)


def test_examples_are_matched_by_id_and_seeds_are_averaged():
    rng = np.random.default_rng(4)
    baseline, reduced = two_models(rng, 300, 0.8, 0.1)
    shuffled = reduced.sample(frac=1, random_state=0).iloc[:250]  # fifty examples are missing
    kept = baseline["id"].isin(shuffled["id"])
    found = significance.difference([baseline], [shuffled])
    again = significance.difference([baseline[kept]], [reduced[kept]])
    assert found.accuracy.mean == pytest.approx(again.accuracy.mean, abs=1e-9)
    twice = significance.difference([baseline, baseline], [reduced, baseline])
    once = significance.difference([baseline], [reduced])
    assert twice.accuracy.mean == pytest.approx(once.accuracy.mean / 2, abs=1e-9)
    assert twice.test == "Behrens-Fisher test over seeds and examples"


def test_f1_of_right_and_wrong_in_equal_classes_is_as_sure_as_accuracy():
    """With balanced classes and errors, weighted F1 and accuracy move together, and so do their intervals."""
    right = right_answers(np.random.default_rng(13), 4000, 3, 0.5, {"heads": 0.05})
    labels = np.arange(4000) % 2
    theirs, ours = (np.where(right["bert", dim], labels, 1 - labels) for dim in ("none", "heads"))
    found = significance.difference_of(labels, theirs, ours)
    assert found.f1.mean == pytest.approx(found.accuracy.mean, abs=0.05)
    assert found.f1.interval == pytest.approx(found.accuracy.interval, abs=0.3)


PLANTED = {"heads": 0.0, "hidden": 0.12, "layers": 0.06}


@pytest.mark.slow
def test_over_100_stores_tables_ranking_and_decisions_are_the_planted_ones():
    rng = np.random.default_rng(5)
    covered, covered_f1, covered_on_average, first, false, found = [], [], [], 0, 0, []
    for _ in range(100):
        rows, stored = planted_store(rng, right_answers(rng, 200, 3, 0.5, PLANTED))
        table = changes(rows, pd.DataFrame(), stored)
        truth = -100 * table["Dimension"].map(PLANTED)
        covered += list((table["95% low"] <= truth) & (truth <= table["95% high"]))
        # Classes and errors are balanced, so F1 loses what accuracy loses.
        covered_f1 += list((table["F1 95% low"] <= truth) & (truth <= table["F1 95% high"]))
        different = table["Difference"].isin(["loss", "gain"])
        false += different[table["Dimension"].eq("heads")].any()
        found += list(different[table["Dimension"].eq("hidden")])
        order = ranking(table, gains_by_row(rows, stored))
        truth = -100 * order["Dimension"].map(PLANTED)
        covered_on_average += list((order["95% low"] <= truth) & (truth <= order["95% high"]))
        first += order["Dimension"].tolist() == ["hidden", "layers", "heads"]
    assert 0.92 <= np.mean(covered) <= 0.98
    assert 0.92 <= np.mean(covered_f1) <= 0.98
    assert 0.92 <= np.mean(covered_on_average) <= 0.985
    assert false <= 6
    assert np.mean(found) > 0.4
    assert first > 90


@pytest.mark.slow
@pytest.mark.parametrize("examples", [200, 25_000])
@pytest.mark.parametrize("seeds", [3, 5])
def test_where_training_seeds_differ_by_02_points_intervals_hold_and_nothing_false_is_found(seeds, examples):
    """Of 200 stores of nine reductions that lose nothing: 95% of the intervals hold zero, 5% find a difference."""
    held, false = measured(np.random.default_rng(6), 200, examples, seeds, noise=0.2)
    assert 0.92 <= held <= 0.98
    assert false <= 0.06


@pytest.mark.slow
def test_one_seed_of_many_examples_finds_differences_that_are_the_seeds():
    """What one seed cannot say: the luck of two trainings is a real difference of these runs."""
    for seeds, judged in ((1, judged_over_seeds_and_examples), (3, judged_over_examples_alone)):
        held, false = measured(np.random.default_rng(10), 40, 25_000, seeds, noise=0.2, judged=judged)
        assert held < 0.9
        assert false > 0.2


def test_verdicts_of_one_seed_are_on_these_runs_and_of_three_are_not():
    losses = {"heads": 0.0, "hidden": 0.2, "layers": 0.1}
    rng = np.random.default_rng(14)
    for seeds, ending in ((1, " on these runs"), (3, "")):
        rows, stored = planted_store(rng, right_answers(rng, 3000, seeds, 0.1, losses))
        table = changes(rows, pd.DataFrame(), stored)
        assert set(table.loc[table["Dimension"].ne("heads"), "Difference"]) == {f"loss{ending}"}
        said = expectations(rows, table, stored)
        poorer = said[said.index("representations are poorer") :]
        assert poorer.startswith(f"representations are poorer: **{'on these runs: yes' if ending else 'confirmed'}**")
    assert set(table["Test"]) == {"Behrens-Fisher test over seeds and examples"}


def test_draws_spread_as_the_standard_error_says():
    values = np.random.default_rng(6).random((2, 1, 800))
    means = significance.drawn_again(values)
    assert means.mean(axis=0) == pytest.approx(values.mean(axis=(1, 2)), abs=0.001)
    assert means.std(axis=0) == pytest.approx(stats.sem(values[:, 0], axis=1), rel=0.1)


def test_draws_over_three_seeds_leave_the_interval_as_often_as_it_says():
    values = np.random.default_rng(15).normal(0, 1, (2, 3, 1)) + np.random.default_rng(16).normal(0, 9, (2, 3, 500))
    low, high = np.transpose([significance.crossed(each).interval for each in values])
    means = significance.drawn_again(values)
    assert ((means < low) | (means > high)).mean(axis=0) == pytest.approx([0.05, 0.05], abs=0.012)
