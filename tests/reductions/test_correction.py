"""The closed-form correction against scikit-learn, numpy and its own purpose."""

import numpy as np
import pytest
import torch
from networks import small
from oracles import inputs_of
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from conftest import FAMILIES
from encoder_reduction.plan.precision import calibration_arithmetic
from encoder_reduction.plan.sections import Reduction
from encoder_reduction.reductions import cut, reduce_model
from encoder_reduction.reductions.correction import correct_hidden
from encoder_reduction.reductions.hidden import principal_basis, select_width, slice_width
from encoder_reduction.reductions.observed import full_precision
from encoder_reduction.reductions.regression import Regression, query_key_bases, value_output_bases


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_regression_is_ridge_regression():
    x, y = tokens(500, 12) + 3, tokens(500, 5, seed=1) - 1
    y = y + x @ tokens(12, 5, seed=2)
    regression = Regression()
    for part in range(0, 500, 100):
        regression.add(x[part : part + 100], y[part : part + 100])
    weight, bias = regression.solve(torch.zeros(5, 12), ridge=0.1)
    centred = (x - x.mean(0)).double()
    oracle = Ridge(alpha=0.1 * centred.square().sum(0).mean().item()).fit(x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(weight, oracle.coef_, atol=1e-4)
    np.testing.assert_allclose(bias, oracle.intercept_, atol=1e-3)


def test_regression_without_information_keeps_the_prior():
    regression = Regression()
    regression.add(torch.zeros(10, 3), torch.ones(10, 2))
    weight, bias = regression.solve(torch.full((2, 3), 0.5))
    assert torch.equal(weight, torch.full((2, 3), 0.5, dtype=torch.float64))
    np.testing.assert_allclose(bias, 1.0)


@pytest.mark.parametrize("units", [3, 8])
def test_query_key_bases_give_the_best_products_of_that_rank(units):
    """By Eckart and Young, no rank-r matrix is nearer to Q K^T than its truncated decomposition."""
    query, key = tokens(60, 2, 8), tokens(60, 2, 8, seed=1)
    for_query, for_key = query_key_bases(query, key, units)
    for head in range(2):
        products = (query[:, head] @ key[:, head].T).double().numpy()
        u, s, vh = np.linalg.svd(products)
        best = (u[:, :units] * s[:units]) @ vh[:units]
        left, right = query[:, head].double() @ for_query[head], key[:, head].double() @ for_key[head]
        np.testing.assert_allclose(left @ right.T, best, atol=1e-3)


def test_value_output_bases_give_the_best_output_of_that_rank():
    value, output = tokens(80, 2, 8), tokens(2, 8, 20, seed=1)
    basis, weights = value_output_bases(value, output, 4)
    for head in range(2):
        written = (value[:, head] @ output[head]).double().numpy()
        u, s, vh = np.linalg.svd(written, full_matrices=False)
        best = (u[:, :4] * s[:4]) @ vh[:4]
        np.testing.assert_allclose(value[:, head].double() @ basis[head] @ weights[head], best, atol=1e-3)


def stream_error(model, wide, batches, basis=None):
    """Share of the wide network's last hidden state that the reduced one misses (1 - R squared)."""
    wanted, got = [], []
    with torch.no_grad():
        for batch in batches:
            mask = batch["attention_mask"].bool()
            wanted.append(wide.base_model(**inputs_of(batch)).last_hidden_state[mask])
            got.append(model.base_model(**inputs_of(batch)).last_hidden_state[mask])
    wanted, got = torch.cat(wanted), torch.cat(got)
    wanted = wanted if basis is None else wanted @ basis
    return ((got - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()).item()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("dim", "strategy", "criterion"), [("heads", "prune", "gradient"), ("layers", "alternate", None)]
)
def test_correction_brings_the_stream_back_on_unseen_text(packaged, batches, family, dim, strategy, criterion):
    # Batches go from short to long texts: the first and the last calibrate, the middle one judges.
    wide, seen, unseen = packaged[family][0], batches[family][::2], batches[family][1:2]
    errors = {}
    for correct in ("none", "least_squares"):
        how = Reduction(keep=0.5, strategy=strategy, criterion=criterion, correct=correct, calibration_examples=32)
        reduced = reduce_model(wide, {dim: how}, seen, seed=0)
        errors[correct] = stream_error(reduced, wide, unseen)
    assert errors["least_squares"] < 0.95 * errors["none"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dim", "strategy", "criterion"),
    [("heads", "prune", "gradient"), ("intermediate", "prune", "gradient"), ("hidden", "project", "activation")],
)
def test_a_walk_in_bfloat16_refits_as_well(packaged, batches, dim, strategy, criterion):
    wide, seen, unseen = packaged["bert"][0], batches["bert"][::2], batches["bert"][1:2]
    how = {"strategy": strategy, "criterion": criterion, "correct": "least_squares", "calibration_examples": 32}
    errors = {}
    for precision in ("fp32", "bf16"):
        with calibration_arithmetic(precision):
            cut_down = cut(wide, {dim: Reduction(keep=0.5, **how)}, seen, seed=0)
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
        errors[precision] = stream_error(cut_down.model, wide, unseen, cut_down.basis)
    assert errors["bf16"] == pytest.approx(errors["fp32"], rel=0.05)
    assert errors["bf16"] != errors["fp32"]


def test_what_is_made_of_a_walk_in_bfloat16_keeps_single_precision():
    """Also where one such function calls another: the walk goes on in bfloat16 afterwards."""
    rows = tokens(40, 8)

    @full_precision
    def outer():
        first = Regression()
        first.add(rows, rows)
        return rows @ rows.T

    with calibration_arithmetic("bf16"):
        assert outer().dtype == torch.float32
        assert (rows @ rows.T).dtype == torch.bfloat16
        width = select_width(network := small("bert", 2, 4, 4, 64), 8, "first", None, seed=0)
        narrow = slice_width(network, width)
    whole = network.bert.embeddings.word_embeddings.weight
    assert torch.equal(narrow.bert.embeddings.word_embeddings.weight, whole[:, :8])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("strategy", "missed"), [("slice", 0.6), ("project", 0.75)])
def test_correction_of_the_width_brings_what_is_kept_back(packaged, batches, family, strategy, missed):
    wide, seen, unseen = packaged[family][0], batches[family][::2], batches[family][1:2]
    width = select_width(wide, 192, "activation", seen, seed=0, strategy=strategy)
    sliced = slice_width(wide, width)
    before = stream_error(sliced, wide, unseen, width.basis)
    corrected = correct_hidden(wide, sliced, width, seen)
    after = stream_error(corrected, wide, unseen, width.basis)
    assert before > 0.8
    assert after < missed


@pytest.mark.slow
def test_the_principal_directions_carry_more_of_the_stream_than_channels(packaged, batches):
    """The share of each channel of the next-to-last layer that is not told by what the narrow network has there."""
    wide, seen, unseen = packaged["bert"][0], batches["bert"][::2], batches["bert"][1:2]
    missed = {}
    for strategy in ("slice", "project"):
        width = select_width(wide, 192, "activation", seen, seed=0, strategy=strategy)
        narrow = correct_hidden(wide, slice_width(wide, width), width, seen)
        with torch.no_grad():
            whole, kept = (
                torch.cat([model(**inputs_of(batch), output_hidden_states=True).hidden_states[-2] for batch in unseen])
                for model in (wide, narrow)
            )
        mask = torch.cat([batch["attention_mask"].bool() for batch in unseen])
        whole, kept = whole[mask], kept[mask]
        mean = whole.mean(0)
        told = mean + (kept - mean @ width.basis) @ width.basis.T
        missed[strategy] = ((told - whole).square().mean(0) / (whole - mean).square().mean(0)).mean().item()
    assert missed["project"] < 0.9 * missed["slice"]


def test_the_principal_basis_holds_as_much_variance_as_any_of_its_size():
    points = tokens(300, 10) @ tokens(10, 10, seed=1)
    basis = principal_basis(torch.from_numpy(np.cov(points.double().numpy(), rowvar=False)), 4)
    torch.testing.assert_close(basis.T @ basis, torch.eye(4), atol=1e-6, rtol=0)
    variance = (points @ basis).var(dim=0).sum().item()
    assert variance == pytest.approx(PCA(4).fit(points.numpy()).explained_variance_.sum(), rel=1e-5)
