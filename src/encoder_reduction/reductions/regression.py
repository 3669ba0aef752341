"""The closed forms that a reduced network's maps are refitted by: ridge regression and truncated decompositions.

Where heads get narrower, their units are not picked but combined: query and key by a singular value
decomposition of their product, value and output by one of theirs, each in the metric of the calibration
text, which is the best approximation of that rank (see :func:`query_key_bases`).
"""

import torch
from torch import nn

from .observed import full_precision

# Chosen on held-out text: with 32, 200 and 600 calibration texts alike, 0.3 brought the last hidden state
# nearer to the original's than 0.1 or 3, and much nearer than 0.001 (docs/reductions.md).
RIDGE = 0.3
# LayerNorm's two numbers per channel are fitted on every token; they hardly need drawing back.
_NORM_RIDGE = 1e-3
# Tokens that a weight is fitted on; of more, every second or third is taken.
_TOKENS_PER_INPUT = 32
_JITTER = 1e-6
# Added to every variance that is divided by: a channel that never moves keeps its weights.
_NO_VARIANCE = 1e-9

# One tensor per calibration batch: hidden states (batch, tokens, width), or, with the padding
# dropped, (tokens, width).
Stream = list[torch.Tensor]


class Regression:
    """Ridge regression from running sums, so that calibration tokens need not be kept.

    Minimises ``|X W^T + b - Y|^2 + penalty * |W - prior|^2`` over ``W`` and ``b``, where the penalty is
    ``ridge`` times the mean diagonal of the centred ``X^T X``. Sums are kept in double precision.
    """

    def __init__(self) -> None:
        self._sums: list[torch.Tensor] | None = None

    @full_precision
    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in some tokens: inputs ``(tokens, in)`` and targets ``(tokens, out)``."""
        inputs, targets = inputs.float(), targets.float()
        count = torch.tensor(float(len(inputs)), device=inputs.device)
        terms = [count, inputs.sum(0), targets.sum(0), inputs.T @ inputs, inputs.T @ targets]
        sums = [term.double() for term in terms]
        self._sums = sums if self._sums is None else [a + b for a, b in zip(self._sums, sums, strict=True)]

    def solve(self, prior: torch.Tensor, ridge: float = RIDGE) -> tuple[torch.Tensor, torch.Tensor]:
        """The weight ``(out, in)``, drawn towards ``prior``, and the bias ``(out,)``, in double precision."""
        count, x, y, xx, xy = self._sums
        xx = xx - torch.outer(x, x) / count
        xy = xy - torch.outer(x, y) / count
        prior = prior.double()
        penalty = ridge * xx.diagonal().mean() + _NO_VARIANCE * count
        gram = xx + penalty * torch.eye(len(x), dtype=xx.dtype, device=xx.device)
        weight = prior + torch.linalg.solve(gram, xy - xx @ prior.T).T
        return weight, (y - weight @ x) / count


def fit(linear: nn.Linear, inputs: Stream, targets: Stream) -> None:
    """Refit a linear map, in place, drawing its weight towards what it is."""
    regression = Regression()
    every = max(1, sum(map(len, inputs)) // (_TOKENS_PER_INPUT * linear.in_features))
    for x, y in zip(inputs, targets, strict=True):
        regression.add(x[::every], y[::every])
    weight, bias = regression.solve(linear.weight)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


@full_precision
def fit_norm(norm: nn.LayerNorm, inputs: Stream, targets: Stream) -> None:
    """Refit gain and bias of a LayerNorm, in place, channel by channel, drawing the gain towards what it is."""
    normalised = torch.cat([nn.functional.layer_norm(x, x.shape[-1:], eps=norm.eps) for x in inputs]).double()
    wanted = torch.cat(targets).double()
    x, y = normalised - normalised.mean(0), wanted - wanted.mean(0)
    variance, covariance = x.square().mean(0), (x * y).mean(0)
    prior = norm.weight.double()
    gain = prior + (covariance - variance * prior) / (variance + _NORM_RIDGE * variance.mean() + _NO_VARIANCE)
    norm.weight.copy_(gain)
    norm.bias.copy_(wanted.mean(0) - gain * normalised.mean(0))


@full_precision
def query_key_bases(query: torch.Tensor, key: torch.Tensor, units: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of each head to fewer units that keep the products q.k best.

    With ``Lq Lq^T`` and ``Lk Lk^T`` the second moments of query and key, the truncated singular value
    decomposition ``U S V^T`` of ``Lq^T Lk`` gives the best approximation of that rank of q.k over all
    pairs of calibration tokens; the maps are ``Lq^-T U S^1/2`` and ``Lk^-T V S^1/2``.

    Args:
        query, key: ``(tokens, heads, head size)``.
        units: the new head size.

    Returns:
        Two tensors ``(heads, head size, units)``.
    """
    left, right = _moment_root(query), _moment_root(key)
    u, s, vh = torch.linalg.svd(left.mT @ right)
    root = s[:, None, :units].sqrt()
    return (
        torch.linalg.solve_triangular(left.mT, u[:, :, :units], upper=True) * root,
        torch.linalg.solve_triangular(right.mT, vh.mT[:, :, :units], upper=True) * root,
    )


@full_precision
def value_output_bases(value: torch.Tensor, output: torch.Tensor, units: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A map of each head's value to fewer units, and the output weights that read them.

    The best approximation of that rank of each head's product value . output, in the metric of the
    calibration tokens' values.

    Args:
        value: ``(tokens, heads, head size)``.
        output: ``(heads, head size, hidden)``, the output projection, head by head.

    Returns:
        The map ``(heads, head size, units)`` and the new output weights ``(heads, units, hidden)``.
    """
    left = _moment_root(value)
    u, s, vh = torch.linalg.svd(left.mT @ output.double(), full_matrices=False)
    root = s[:, :units].sqrt()
    basis = torch.linalg.solve_triangular(left.mT, u[:, :, :units], upper=True) * root[:, None, :]
    return basis, vh[:, :units] * root[:, :, None]


def _moment_root(tokens: torch.Tensor) -> torch.Tensor:
    """Cholesky factors ``(heads, n, n)`` of the second moments of ``(tokens, heads, n)``."""
    tokens = tokens.double()
    moment = torch.einsum("thi,thj->hij", tokens, tokens) / len(tokens)
    jitter = _JITTER * moment.diagonal(dim1=1, dim2=2).mean(dim=1) + _NO_VARIANCE
    eye = torch.eye(moment.shape[-1], dtype=moment.dtype, device=moment.device)
    return torch.linalg.cholesky(moment + jitter[:, None, None] * eye)
