"""Closed-form correction of a reduced network: refit its maps to what the full network computes.

Cutting leaves every surviving weight tuned to inputs that no longer arrive. This module walks the full
network and its reduced copy through the same calibration text, layer by layer, and refits each linear
map of the reduced layer by ridge regression: a map that reads the residual stream to what its original
produced, a map that writes into the stream to the original's stream minus what the reduced stream
already holds. Each layer is fitted on the inputs it will really get, so errors do not pile up. This is
layer-wise reconstruction (He et al. 2017, "Channel Pruning", section 3.1); no gradient is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from ..models.architectures import family_of, sizes_of
from .hidden import Width
from .observed import Batch, full_precision, inference, inputs_of, recorded_inputs, recorded_outputs
from .regression import Stream, fit, fit_norm, query_key_bases, value_output_bases

# What is refitted where the width was cut, by the names that a family has for its modules.
_WIDTH = frozenset(
    {"embedding_norm", "reading", "attention_output", "attention_norm", "intermediate", "output", "output_norm"}
)


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
    asked = {"attention_output": heads, "output": intermediate or gaps, "output_norm": gaps}
    scope = frozenset(name for name, wanted in asked.items() if wanted)
    return _Correction(wide, narrow, batches, scope, kept_layers=kept_layers).run()


def correct_hidden(
    wide: PreTrainedModel, narrow: PreTrainedModel, width: Width, batches: list[Batch]
) -> PreTrainedModel:
    """Refit every map and LayerNorm of a network whose width was cut, in place; of its head what is pretrained."""
    return _Correction(wide, narrow, batches, _WIDTH, width=width).run()


@dataclass
class _Walk:
    """One network on its way through the calibration text.

    Attributes:
        hidden: the residual stream before the next layer.
        calls: what the network hands to each layer besides the stream (attention masks, mostly).
    """

    hidden: Stream = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Seen:
    """What entered and left modules of a layer, as tokens, by the modules' names."""

    inputs: dict[str, Stream]
    outputs: dict[str, Stream]


class _Correction:
    """Walks both networks through the calibration text, once each, and refits the reduced one in place."""

    def __init__(
        self,
        wide: PreTrainedModel,
        narrow: PreTrainedModel,
        batches: list[Batch],
        scope: frozenset[str],
        *,
        kept_layers: list[int] | None = None,
        width: Width | None = None,
    ) -> None:
        self.family, self.scope, self.width = family_of(wide), scope, width
        self.wide, self.narrow, self.batches = wide, narrow, batches
        self.masks = [batch["attention_mask"].bool() for batch in batches]
        self.wide_layers = list(self.family.layer_list(wide))
        self.kept = kept_layers if kept_layers is not None else list(range(len(self.wide_layers)))
        self.activation = ACT2FN[getattr(wide.config, self.family.activation)]
        self.basis = width.basis.to(wide.device) if width else None

    @torch.no_grad()
    def run(self) -> PreTrainedModel:
        with inference(self.wide), inference(self.narrow):
            self.wide_walk = self._enter(self.wide)
            if "embedding_norm" in self.scope:
                self._refit_embedding_norm()
            self.narrow_walk = self._enter(self.narrow)
            for layer in self.wide_layers[: self.kept[0]]:
                self._advance(layer)
            bounds = [*self.kept[1:], len(self.wide_layers)]
            for index, layer in enumerate(self.family.layer_list(self.narrow)):
                self._refit_layer(index, layer, self.wide_layers[self.kept[index] : bounds[index]])
            if self.width and self.family.pooler:
                self._refit_pooler()
        return self.narrow

    def _refit_layer(self, index: int, layer: nn.Module, originals: list[nn.Module]) -> None:
        """Refit one layer to its original and to the dropped layers that follow it, on the way through it."""
        family, original = self.family, self._originals(originals)
        stream = self._tokens(self.narrow_walk.hidden)
        if "reading" in self.scope:
            self._refit_reading(index, layer, originals[0], stream, original.outputs)
        stream = self._write(layer, ("attention_output", "attention_norm"), self._context(layer), stream, original)
        linear = layer.get_submodule(family.intermediate)
        if "intermediate" in self.scope:
            units = self.width.intermediate[index]
            fit(linear, stream, [tokens[:, units] for tokens in original.outputs[family.intermediate]])
        active = [self.activation(linear(tokens)) for tokens in stream]
        stream = self._write(layer, ("output", "output_norm"), active, stream, original)
        for hidden, mask, tokens in zip(self.narrow_walk.hidden, self.masks, stream, strict=True):
            hidden[mask] = tokens

    def _write(self, layer: nn.Module, names: tuple[str, str], read: Stream, stream: Stream, original: _Seen) -> Stream:
        """The end of a sublayer, refitted as far as the scope asks: the map that writes the stream, and its LayerNorm.

        Args:
            layer: the reduced layer.
            names: of the two, as the family has them.
            read: what the map reads, ``(tokens, units)`` of each batch.
            stream: what it adds to, ``(tokens, hidden)`` of each batch.
            original: what passed the modules of the original.

        Returns:
            The stream after the LayerNorm.
        """
        output, norm = (getattr(self.family, name) for name in names)
        linear, normalise = layer.get_submodule(output), layer.get_submodule(norm)
        if names[0] in self.scope:
            wanted = self._kept(original.inputs[norm])
            fit(linear, read, [total - held for total, held in zip(wanted, stream, strict=True)])
        total = [linear(units) + held for units, held in zip(read, stream, strict=True)]
        if names[1] in self.scope:
            fit_norm(normalise, total, self._kept(original.outputs[norm]))
        return [normalise(tokens) for tokens in total]

    def _originals(self, layers: list[nn.Module]) -> _Seen:
        """Run original layers, and see what passes their modules.

        Everything is the first layer's, but for the feed-forward output, which is the last layer's: it
        is the stream that the reduced layer should hand on.
        """
        family = self.family
        reading = {family.query, family.key, family.value, family.attention_norm, family.intermediate}
        seen = self._advance(
            layers[0], {family.attention_norm, family.output_norm}, reading if "reading" in self.scope else set()
        )
        for layer in layers[1:]:
            seen.inputs |= self._advance(layer, {family.output_norm}).inputs
        # That norm's output is the layer's, which the walk now holds.
        seen.outputs[family.output_norm] = self._tokens(self.wide_walk.hidden)
        return seen

    @full_precision
    def _refit_reading(
        self, index: int, layer: nn.Module, original: nn.Module, stream: Stream, outputs: dict[str, Stream]
    ) -> None:
        """Refit query, key and value to combinations of their originals' units."""
        family, wide, narrow = self.family, sizes_of(self.wide), sizes_of(self.narrow)
        names = (family.query, family.key, family.value)
        by_head = {name: torch.cat(outputs[name]).float().unflatten(-1, (-1, wide.head_size)) for name in names}
        query, key = query_key_bases(by_head[family.query], by_head[family.key], narrow.head_size)
        # The attention divides by the root of its own head size; the logits must keep their scale.
        scale = (narrow.head_size / wide.head_size) ** 0.25
        output = self.basis.T @ original.get_submodule(family.attention_output).weight
        output = output.unflatten(-1, (-1, wide.head_size)).permute(1, 2, 0)
        value, new_output = value_output_bases(by_head[family.value], output, narrow.head_size)
        for name, basis in zip(names, (query * scale, key * scale, value), strict=True):
            basis = basis.to(self.basis.dtype)
            weight = (original.get_submodule(name).weight @ self.basis).unflatten(0, (-1, wide.head_size))
            layer.get_submodule(name).weight.copy_(torch.einsum("hij,hid->hjd", basis, weight).flatten(0, 1))
            target = [
                torch.einsum("thi,hij->thj", tokens.float().unflatten(-1, (-1, wide.head_size)), basis).flatten(1)
                for tokens in outputs[name]
            ]
            fit(layer.get_submodule(name), stream, target)
        layer.get_submodule(family.attention_output).weight.copy_(new_output.flatten(0, 1).T)

    def _refit_embedding_norm(self) -> None:
        norm = self.narrow.get_submodule(f"{self.family.backbone}.{self.family.embedding_norm}")
        total = [
            _arguments(norm, lambda batch=batch: self.narrow(**inputs_of(batch)))[0][0][mask]
            for batch, mask in zip(self.batches, self.masks, strict=True)
        ]
        fit_norm(norm, total, self._kept(self._tokens(self.wide_walk.hidden)))

    def _refit_pooler(self) -> None:
        """The pooler reads the first token of each text only."""
        wide, narrow = (model.get_submodule(self.family.pooler) for model in (self.wide, self.narrow))
        target = [wide(hidden[:, 0])[:, self.width.pooled] for hidden in self.wide_walk.hidden]
        fit(narrow, [hidden[:, 0] for hidden in self.narrow_walk.hidden], target)

    @full_precision
    def _kept(self, stream: Stream) -> Stream:
        """Of the original's stream what the reduced one carries."""
        return stream if self.basis is None else [tokens.float() @ self.basis for tokens in stream]

    def _enter(self, model: PreTrainedModel) -> _Walk:
        """The embeddings of the calibration text, and how the network calls its layers."""
        walk, first = _Walk(), self.family.layer_list(model)[0]
        for batch in self.batches:
            (hidden, *rest), kwargs = _arguments(first, lambda batch=batch: model(**inputs_of(batch)))
            walk.hidden.append(hidden)
            walk.calls.append({"attention_mask": rest[0], **kwargs} if rest else kwargs)
        return walk

    def _context(self, layer: nn.Module) -> Stream:
        """What the attention of a reduced layer hands to its output projection, as tokens."""
        output = layer.get_submodule(self.family.attention_output)
        walk = zip(self.narrow_walk.hidden, self.narrow_walk.calls, self.masks, strict=True)
        return [
            _arguments(output, lambda hidden=hidden, call=call: layer(hidden, **call))[0][0][mask]
            for hidden, call, mask in walk
        ]

    def _advance(self, layer: nn.Module, inputs: set[str] = frozenset(), outputs: set[str] = frozenset()) -> _Seen:
        """Take the walk of the original through a layer, and see what enters and leaves its named modules."""
        entering = {name: layer.get_submodule(name) for name in inputs}
        leaving = {name: layer.get_submodule(name) for name in outputs}
        seen, walk = _Seen({name: [] for name in inputs}, {name: [] for name in outputs}), self.wide_walk
        with recorded_inputs([*entering.values()]) as ins, recorded_outputs([*leaving.values()]) as outs:
            for index, (call, mask) in enumerate(zip(walk.calls, self.masks, strict=True)):
                walk.hidden[index] = layer(walk.hidden[index], **call)
                for name, module in entering.items():
                    seen.inputs[name].append(ins[module][mask])
                for name, module in leaving.items():
                    seen.outputs[name].append(outs[module][mask])
        return seen

    def _tokens(self, stream: Stream) -> Stream:
        return [hidden[mask] for hidden, mask in zip(stream, self.masks, strict=True)]


class _ArgumentsKnownError(Exception):
    """Leaves a forward pass before the module whose arguments were asked for."""


def _arguments(module: nn.Module, run: Callable[[], object]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a module is called with in a forward pass, which goes no further."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append((args, kwargs))
        raise _ArgumentsKnownError

    handle = module.register_forward_pre_hook(leave, with_kwargs=True)
    try:
        run()
    except _ArgumentsKnownError:
        pass
    finally:
        handle.remove()
    return found[0]
