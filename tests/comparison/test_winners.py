"""The choice among candidates at one budget, on planted predictions whose true order is known."""

import numpy as np
import pytest
from planted import two_splits
from scipy import stats

from encoder_reduction.comparison.winners import winner

TIES = dict.fromkeys(("a", "b", "c", "d", "e"), 0.02)
ONE_AHEAD = TIES | {"c": 0.0}
SIZES = {"validation": 600, "test": 1500}


def planted(rng, seeds, noise, losses, sizes=SIZES):
    """The winner among candidates that lose this much of the accuracy."""
    found = two_splits(rng, sizes, seeds, noise, losses)
    right = 100 * np.array([found["validation"][dim] for dim in losses], dtype=float)
    gains = 100 * np.array([found["test"][dim].astype(float) - found["test"]["none"] for dim in losses])
    return winner(list(losses), right, gains, ["bert"])


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("losses", [TIES, ONE_AHEAD], ids=["ties", "one ahead"])
def test_over_200_stores_the_interval_of_the_chosen_one_holds_what_it_truly_loses(losses, seeds):
    """Also where five are as good as each other, so that the choice is by luck alone."""
    rng = np.random.default_rng(21)
    found = [planted(rng, seeds, 0.5, losses) for _ in range(200)]
    held = [each.interval[0] <= -100 * losses[each.dim] <= each.interval[1] for each in found]
    assert 0.92 <= np.mean(held) <= 0.98


def test_the_planted_winner_is_named_and_told_apart():
    rng = np.random.default_rng(22)
    found = [
        planted(rng, 5, 0.1, {"a": 0.1, "b": 0.1, "c": 0.0}, {"validation": 1000, "test": 3000}) for _ in range(20)
    ]
    assert {each.dim for each in found} == {"c"}
    assert all(each.decided and not each.not_told_apart for each in found)
    assert min(each.again for each in found) > 0.99


def test_of_equals_one_is_seldom_called_better():
    rng = np.random.default_rng(23)
    found = [planted(rng, 3, 0.5, TIES) for _ in range(60)]
    assert sum(each.decided for each in found) <= 3
    assert len({each.dim for each in found}) == 5
    assert np.median([each.again for each in found]) < 0.6


def test_choosing_on_validation_is_not_told_by_test():
    """The test split is worse for the one that validation takes: it is taken all the same, and called undecided."""
    rng = np.random.default_rng(24)
    validation, test = (100.0 * (rng.random((2, 2, 400)) < 0.8) for _ in range(2))
    validation[1] = 100.0
    test[1] -= 30
    found = winner(["a", "b"], validation, test, ["bert", "roberta"])
    assert found.dim == "b"
    assert found.rivals["p (Holm)"].item() < 0.05
    assert not found.decided
    assert (found.better_on_test, found.not_told_apart) == (["a"], [])


def test_luck_that_is_shared_by_the_splits_widens_the_interval_downwards():
    """Where seeds differ much, the best on validation was lucky on test, too."""
    rng = np.random.default_rng(25)
    luck = rng.standard_normal((5, 4, 1))
    right, gains = (50 + luck + 0.5 * rng.standard_normal((5, 4, 300)) for _ in range(2))
    found = winner(list("abcde"), right, gains, ["bert", "roberta"])
    assert found.points - found.interval[0] > 1.2 * (found.interval[1] - found.points)


def test_one_seed_is_judged_by_mcnemars_exact_test():
    rng = np.random.default_rng(26)
    right = rng.random((2, 1, 500)) < np.array([[[0.9]], [[0.8]]])
    found = winner(["a", "b"], 100.0 * right, 100.0 * right, ["bert"])
    better, worse = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert found.rivals["p (Holm)"].item() == pytest.approx(stats.binomtest(better, better + worse).pvalue)
    assert found.test == "McNemar's exact test"


def test_a_single_candidate_has_its_plain_interval_and_no_rival():
    rng = np.random.default_rng(27)
    gains = rng.choice([-100.0, 0.0, 100.0], (1, 1, 400))
    found = winner(["a"], gains, gains, ["bert"])
    assert not found.decided  # There is nothing that it is ahead of.
    assert found.again == 1
    expected = stats.norm.interval(0.95, gains.mean(), stats.sem(gains.ravel()))
    assert found.interval == pytest.approx(expected, abs=0.25)
