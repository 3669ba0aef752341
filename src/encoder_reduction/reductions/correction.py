"""Closed-form correction of a reduced network: refit its maps to what the full network computes.

Cutting leaves every surviving weight tuned to inputs that no longer arrive. This module walks the full
network and its reduced copy through the same calibration text, layer by layer, and refits each linear
map of the reduced layer by ridge regression: a map that reads the residual stream to what its original
produced, a map that writes into the stream to the original's stream minus what the reduced stream
already holds. Each layer is fitted on the inputs it will really get, so errors do not pile up. This is
layer-wise reconstruction (He et al. 2017, "Channel Pruning", section 3.1); no gradient is taken.

Where heads get narrower, their units are not picked but combined: query and key by a singular value
decomposition of their product, value and output by one of theirs, each in the metric of the calibration
text, which is the best approximation of that rank (see :func:`query_key_bases`).

Over 300 lines, since the walk, the regression and the bases are one method: none is of use without the others.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.architectures import family_of, sizes_of
from .hidden import Width
from .importance import Batch, inference, inputs_of, recorded_inputs, recorded_outputs

# Chosen on held-out text: with 32, 200 and 600 calibration texts alike, 0.3 brought the last hidden state
# nearer to the original's than 0.1 or 3, and much nearer than 0.001 (docs/reductions.md).
RIDGE = 0.3
# LayerNorm's two numbers per channel are fitted on every token; they hardly need drawing back.
_NORM_RIDGE = 1e-3
_JITTER = 1e-6
# Added to every variance that is divided by: a channel that never moves keeps its weights.
_NO_VARIANCE = 1e-9

# One tensor per calibration batch: hidden states (batch, tokens, width), or, with the padding
# dropped, (tokens, width).
Stream = list[torch.Tensor]


def correct_pruned(
    wide: PreTrainedModel,
    narrow: PreTrainedModel,
    batches: list[Batch],
    *,
    heads: bool = False,
    intermediate: bool = False,
    kept_layers: list[int] | None = None,
) -> PreTrainedModel:
    """Refit, in place and in one walk, what writes the stream where heads, units or layers were removed.

    Args:
        wide: the network that is to be matched.
        narrow: what is left of it.
        batches: calibration batches.
        heads: refit the attention's output projections.
        intermediate: refit the feed-forward networks' output projections.
        kept_layers: the layers of ``wide`` that are left, where what precedes a gap is to be refitted to the stream
            after the dropped layers.
    """
    gaps = kept_layers is not None
    scope = _Scope(attention_output=heads, output=intermediate or gaps, output_norm=gaps)
    return _Correction(wide, narrow, batches, scope, kept_layers=kept_layers).run()


def correct_hidden(
    wide: PreTrainedModel, narrow: PreTrainedModel, width: Width, batches: list[Batch]
) -> PreTrainedModel:
    """Refit every map and LayerNorm of a network whose width was cut, in place."""
    scope = _Scope(
        embedding_norm=True,
        reading=True,
        attention_output=True,
        attention_norm=True,
        intermediate=True,
        output=True,
        output_norm=True,
        pooler=True,
    )
    return _Correction(wide, narrow, batches, scope, width=width).run()


class Regression:
    """Ridge regression from running sums, so that calibration tokens need not be kept.

    Minimises ``|X W^T + b - Y|^2 + penalty * |W - prior|^2`` over ``W`` and ``b``, where the penalty is
    ``ridge`` times the mean diagonal of the centred ``X^T X``. Sums are kept in double precision.
    """

    def __init__(self) -> None:
        self._sums: list[torch.Tensor] | None = None

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in some tokens: inputs ``(tokens, in)`` and targets ``(tokens, out)``."""
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


@dataclass(frozen=True)
class _Scope:
    """Which maps of the reduced network are refitted."""

    embedding_norm: bool = False
    reading: bool = False
    attention_output: bool = False
    attention_norm: bool = False
    intermediate: bool = False
    output: bool = False
    output_norm: bool = False
    pooler: bool = False


@dataclass
class _Walk:
    """One network on its way through the calibration text.

    Attributes:
        hidden: the residual stream before the next layer.
        calls: what the network hands to each layer besides the stream (attention masks, mostly).
    """

    hidden: Stream = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)


class _Correction:
    """Walks both networks through the calibration text and refits the reduced one in place."""

    def __init__(
        self,
        wide: PreTrainedModel,
        narrow: PreTrainedModel,
        batches: list[Batch],
        scope: _Scope,
        *,
        kept_layers: list[int] | None = None,
        width: Width | None = None,
    ) -> None:
        self.family, self.scope, self.width = family_of(wide), scope, width
        self.wide, self.narrow, self.batches = wide, narrow, batches
        self.masks = [batch["attention_mask"].bool() for batch in batches]
        self.wide_layers = list(self.family.layer_list(wide))
        self.kept = kept_layers if kept_layers is not None else list(range(len(self.wide_layers)))
        every_channel = torch.arange(sizes_of(wide).hidden)
        self.channels = (width.channels if width else every_channel).to(wide.device)

    @torch.no_grad()
    def run(self) -> PreTrainedModel:
        with inference(self.wide), inference(self.narrow):
            if self.scope.embedding_norm:
                self._refit_embedding_norm()
            self.wide_walk, self.narrow_walk = self._enter(self.wide), self._enter(self.narrow)
            for layer in self.wide_layers[: self.kept[0]]:
                self._advance(layer, self.wide_walk)
            bounds = [*self.kept[1:], len(self.wide_layers)]
            for index, layer in enumerate(self.family.layer_list(self.narrow)):
                self._refit_layer(index, layer, self.wide_layers[self.kept[index] : bounds[index]])
            if self.scope.pooler and self.family.pooler:
                self._refit_pooler()
        return self.narrow

    def _refit_layer(self, index: int, layer: nn.Module, originals: list[nn.Module]) -> None:
        """Refit one layer to its original and to the dropped layers that follow it."""
        family, scope = self.family, self.scope
        inputs, outputs = self._originals(originals)
        stream = self._tokens(self.narrow_walk.hidden)
        if scope.reading:
            self._refit_reading(index, layer, originals[0], stream, outputs)
        if scope.attention_output:
            context = self._input_of(layer, family.attention_output)
            rest = self._remainder(inputs[family.attention_norm], stream)
            self._fit(layer.get_submodule(family.attention_output), context, rest)
        if scope.attention_norm:
            self._refit_norm(layer, family.attention_norm, outputs)
        if scope.intermediate:
            units = self.width.intermediate[index]
            target = [tokens[:, units] for tokens in outputs[family.intermediate]]
            self._fit(layer.get_submodule(family.intermediate), self._input_of(layer, family.intermediate), target)
        if scope.output:
            activations = self._input_of(layer, family.output)
            rest = self._remainder(inputs[family.output_norm], self._input_of(layer, family.intermediate))
            self._fit(layer.get_submodule(family.output), activations, rest)
        if scope.output_norm:
            self._refit_norm(layer, family.output_norm, outputs)
        self._advance(layer, self.narrow_walk)

    def _originals(self, layers: list[nn.Module]) -> tuple[dict[str, Stream], dict[str, Stream]]:
        """Run original layers; what entered and left their modules, by the module's name.

        Everything is the first layer's, but for the feed-forward output, which is the last layer's: it
        is the stream that the reduced layer should hand on.
        """
        family = self.family
        first = {family.query, family.key, family.value, family.attention_norm, family.intermediate}
        inputs, outputs = self._advance(layers[0], self.wide_walk, {family.attention_norm, family.output_norm}, first)
        last: dict[str, Stream] = {}
        if len(layers) == 1:
            # The norm's output is the layer's, which the walk now holds.
            last = {family.output_norm: self._tokens(self.wide_walk.hidden)}
        for layer in layers[1:]:
            new_inputs, last = self._advance(layer, self.wide_walk, {family.output_norm}, {family.output_norm})
            inputs |= new_inputs
        return inputs, outputs | last

    def _refit_reading(
        self, index: int, layer: nn.Module, original: nn.Module, stream: Stream, outputs: dict[str, Stream]
    ) -> None:
        """Refit query, key and value to combinations of their originals' units."""
        family, wide, narrow = self.family, sizes_of(self.wide), sizes_of(self.narrow)
        names = (family.query, family.key, family.value)
        by_head = {name: torch.cat(outputs[name]).unflatten(-1, (-1, wide.head_size)) for name in names}
        query, key = query_key_bases(by_head[family.query], by_head[family.key], narrow.head_size)
        # The attention divides by the root of its own head size; the logits must keep their scale.
        scale = (narrow.head_size / wide.head_size) ** 0.25
        output = original.get_submodule(family.attention_output).weight[self.channels]
        output = output.unflatten(-1, (-1, wide.head_size)).permute(1, 2, 0)
        value, new_output = value_output_bases(by_head[family.value], output, narrow.head_size)
        for name, basis in zip(names, (query * scale, key * scale, value), strict=True):
            basis = basis.to(output.dtype)
            weight = original.get_submodule(name).weight[:, self.channels].unflatten(0, (-1, wide.head_size))
            layer.get_submodule(name).weight.copy_(torch.einsum("hij,hid->hjd", basis, weight).flatten(0, 1))
            target = [
                torch.einsum("thi,hij->thj", tokens.unflatten(-1, (-1, wide.head_size)), basis).flatten(1)
                for tokens in outputs[name]
            ]
            self._fit(layer.get_submodule(name), stream, target)
        layer.get_submodule(family.attention_output).weight.copy_(new_output.flatten(0, 1).T)

    def _refit_norm(self, layer: nn.Module, name: str, outputs: dict[str, Stream]) -> None:
        target = [tokens[:, self.channels] for tokens in outputs[name]]
        _fit_norm(layer.get_submodule(name), self._input_of(layer, name), target)

    def _refit_embedding_norm(self) -> None:
        norms = [
            model.get_submodule(f"{self.family.backbone}.{self.family.embedding_norm}")
            for model in (self.wide, self.narrow)
        ]
        with recorded_outputs(norms[:1]) as outputs, recorded_inputs(norms[1:]) as inputs:
            summed, target = [], []
            for batch, mask in zip(self.batches, self.masks, strict=True):
                self._enter(self.wide, [batch])
                self._enter(self.narrow, [batch])
                summed.append(inputs[norms[1]][mask])
                target.append(outputs[norms[0]][mask][:, self.channels])
        _fit_norm(norms[1], summed, target)

    def _refit_pooler(self) -> None:
        """The pooler reads the first token of each text only."""
        wide, narrow = (model.get_submodule(self.family.pooler) for model in (self.wide, self.narrow))
        target = [wide(hidden[:, 0])[:, self.channels] for hidden in self.wide_walk.hidden]
        self._fit(narrow, [hidden[:, 0] for hidden in self.narrow_walk.hidden], target)

    def _remainder(self, wide_sum: Stream, residual: Stream) -> Stream:
        """What a map must add to the residual to arrive at the original's sum on the kept channels."""
        return [total[:, self.channels] - held for total, held in zip(wide_sum, residual, strict=True)]

    def _fit(self, linear: nn.Linear, inputs: Stream, targets: Stream) -> None:
        regression = Regression()
        for x, y in zip(inputs, targets, strict=True):
            regression.add(x, y)
        weight, bias = regression.solve(linear.weight)
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)

    def _enter(self, model: PreTrainedModel, batches: list[Batch] | None = None) -> _Walk:
        """The embeddings of the calibration text, and how the network calls its layers."""
        walk = _Walk()

        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            walk.hidden.append(args[0])
            walk.calls.append({"attention_mask": args[1], **kwargs} if len(args) > 1 else kwargs)
            raise _EmbeddingsKnownError

        first = self.family.layer_list(model)[0]
        handle = first.register_forward_pre_hook(record, with_kwargs=True)
        try:
            for batch in self.batches if batches is None else batches:
                try:
                    model(**inputs_of(batch))
                except _EmbeddingsKnownError:
                    pass
        finally:
            handle.remove()
        return walk

    def _advance(
        self, layer: nn.Module, walk: _Walk, inputs: set[str] = frozenset(), outputs: set[str] = frozenset()
    ) -> tuple[dict[str, Stream], dict[str, Stream]]:
        """Take a walk through one layer; the recorded inputs and outputs of its named modules, as tokens."""
        result = self._pass(layer, walk, inputs, outputs)
        walk.hidden = result[0]
        return result[1:]

    def _input_of(self, layer: nn.Module, name: str) -> Stream:
        """What enters a module of a reduced layer at present, as tokens."""
        return self._pass(layer, self.narrow_walk, {name}, set())[1][name]

    def _pass(
        self, layer: nn.Module, walk: _Walk, inputs: set[str], outputs: set[str]
    ) -> tuple[Stream, dict[str, Stream], dict[str, Stream]]:
        entering = {name: layer.get_submodule(name) for name in inputs}
        leaving = {name: layer.get_submodule(name) for name in outputs}
        hidden: Stream = []
        seen_in: dict[str, Stream] = {name: [] for name in inputs}
        seen_out: dict[str, Stream] = {name: [] for name in outputs}
        with recorded_inputs([*entering.values()]) as ins, recorded_outputs([*leaving.values()]) as outs:
            for state, call, mask in zip(walk.hidden, walk.calls, self.masks, strict=True):
                hidden.append(layer(state, **call))
                for name, module in entering.items():
                    seen_in[name].append(ins[module][mask])
                for name, module in leaving.items():
                    seen_out[name].append(outs[module][mask])
        return hidden, seen_in, seen_out

    def _tokens(self, stream: Stream) -> Stream:
        return [hidden[mask] for hidden, mask in zip(stream, self.masks, strict=True)]


class _EmbeddingsKnownError(Exception):
    """Leaves a forward pass before its first layer."""


def _fit_norm(norm: nn.LayerNorm, inputs: Stream, targets: Stream) -> None:
    """Refit gain and bias, channel by channel, drawing the gain towards what it is."""
    normalised = torch.cat([nn.functional.layer_norm(x, x.shape[-1:], eps=norm.eps) for x in inputs]).double()
    wanted = torch.cat(targets).double()
    x, y = normalised - normalised.mean(0), wanted - wanted.mean(0)
    variance, covariance = x.square().mean(0), (x * y).mean(0)
    prior = norm.weight.double()
    gain = prior + (covariance - variance * prior) / (variance + _NORM_RIDGE * variance.mean() + _NO_VARIANCE)
    norm.weight.copy_(gain)
    norm.bias.copy_(wanted.mean(0) - gain * normalised.mean(0))
