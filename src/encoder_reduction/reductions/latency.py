"""How long a smaller network takes, told from some that were measured: what a budget of time is spent by.

What FLOPs promise is not what a machine gives: narrow matrices are multiplied at a lower rate, the more so the smaller
the batch, and what is no matrix product counts too. So a few dozen networks are measured in turn with the whole one,
and a time is a sum of what a network consists of, each part at a price that these measurements give: non-negative least
squares on relative errors (Lawson & Hanson 1974), so that more of anything never takes less time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from ..models.architectures import Sizes
from .hidden import narrowed

_WIDTHS = (0.25, 0.5, 0.75, 1.0)
_DRAWN = 20


@dataclass(frozen=True)
class LatencyTable:
    """What the parts of a network take, in units of the whole one's time.

    Attributes:
        full: the whole network's dimensions.
        prices: of each part.
        measured: what it was made of: ``architecture``, ``measured`` and ``told`` time, the latter by the others.
    """

    full: Sizes
    prices: tuple[float, ...]
    measured: pd.DataFrame

    def time(self, sizes: Sizes) -> float:
        """Of an architecture."""
        return float(_parts(self.full, sizes) @ self.prices)

    @property
    def errors(self) -> pd.Series:
        """How far each measured time lies from what the others tell, as shares of it."""
        return (self.measured["told"] / self.measured["measured"] - 1).abs()


def table_of(full: Sizes, architectures: Sequence[Sizes], times: Sequence[float]) -> LatencyTable:
    """The table that measurements give.

    Args:
        full: the whole network's dimensions.
        architectures: what was measured, as :func:`to_measure` names it.
        times: theirs, in units of the whole network's.
    """
    parts, wanted = np.stack([_parts(full, sizes) for sizes in architectures]), np.asarray(times)
    others = ~np.eye(len(wanted), dtype=bool)
    told = [each @ _prices(parts[rest], wanted[rest]) for each, rest in zip(parts, others, strict=True)]
    measured = pd.DataFrame({"architecture": map(in_words, architectures), "measured": wanted, "told": told})
    return LatencyTable(full, tuple(_prices(parts, wanted)), measured)


def to_measure(full: Sizes, head_step: int = 1) -> list[Sizes]:
    """What to measure: at some hidden sizes all of it, half of its depth, one head, next to no units; and at random.

    The random ones are the same at every call.

    Args:
        full: the whole network's dimensions.
        head_step: heads keep a multiple of so many units.
    """
    found = []
    for share in _WIDTHS:
        own = narrowed(full, _hidden(full, share, head_step))
        whole = {"heads": own.heads, "intermediate": own.intermediate}
        depth = own.layers // 2 or 2
        found += [own, own.resized(layers=depth, **whole), own.resized(heads=1), own.resized(intermediate=1)]
    draw = np.random.default_rng(0)
    for _ in range(_DRAWN):
        layers, hidden, heads, units = draw.uniform(size=4)
        own = narrowed(full, _hidden(full, 0.25 + 0.75 * hidden, head_step))
        found.append(
            own.resized(
                layers=1 + int(layers * full.layers),
                heads=1 + int(heads * full.heads),
                intermediate=1 + int(units * own.intermediate),
            )
        )
    return found


def in_words(sizes: Sizes) -> str:
    """``layers 6, hidden 384, heads 12, intermediate 1536``; where layers differ, of each."""
    heads, units = (
        str(by_layer[0]) if len(set(by_layer)) == 1 else "/".join(map(str, by_layer))
        for by_layer in (sizes.heads_by_layer, sizes.intermediate_by_layer)
    )
    return f"layers {sizes.layers}, hidden {sizes.hidden}, heads {heads}, intermediate {units}"


def _prices(parts: np.ndarray, times: np.ndarray) -> np.ndarray:
    return nnls(parts / times[:, None], np.ones(len(times)))[0]


def _parts(full: Sizes, sizes: Sizes) -> np.ndarray:
    """What a network consists of, each as a share of the whole one's.

    The network itself and its hidden size; layers, and these times the hidden size; heads; and of attention and
    feed-forward networks their width, that times the hidden size (matrix products), and the root of this, since small
    products reach a lower rate.
    """
    hidden, layers = sizes.hidden / full.hidden, sizes.layers / full.layers
    heads = np.asarray(sizes.heads_by_layer) / sum(full.heads_by_layer)
    units = np.asarray(sizes.intermediate_by_layer) / sum(full.intermediate_by_layer)
    attention = heads * sizes.head_size / full.head_size
    parts = [1, hidden, layers, layers * hidden, heads.sum()]
    for width in (attention, units):
        parts += [width.sum(), width.sum() * hidden, np.sqrt(width * hidden / full.layers).sum()]
    return np.array(parts)


def _hidden(full: Sizes, share: float, step: int) -> int:
    """The hidden size nearest to a share of the whole: every head keeps a multiple of so many units."""
    return max(step, step * round(share * full.head_size / step)) * (full.hidden // full.head_size)
