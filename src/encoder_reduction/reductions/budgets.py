"""What a budget leaves of a network: of one dimension the size, of several how it may be shared out among them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations, permutations

from ..errors import OutOfReachError
from ..models.architectures import Sizes
from ..plan.sections import Budget, Dimension, Reduction
from .hidden import narrowed
from .sizes import allowed_sizes, cut_to

# What stays of each dimension that is cut at all, and of heads and feed-forward units how they are spread.
Shared = dict[Dimension, int]
# A cost in units of the whole network's.
Share = Callable[[Sizes], float]

# Sizes that are tried are so many of a dimension's whole, so that vectors stay aligned.
_GRID = {"hidden": 8, "intermediate": 48}
# How far a search goes from one way to the next, as shares of a dimension: coarse steps first.
STEPS = (1 / 8, 1 / 16)


@dataclass(frozen=True)
class Space:
    """The ways to share a budget out among dimensions.

    Attributes:
        full: the whole network's dimensions.
        reductions: the dimensions that may be cut, and how.
        budget: what the reduced network may cost.
        share: what a network costs, in units of the whole one's.
        head_step: where the hidden size is cut, heads keep a multiple of so many units.
    """

    full: Sizes
    reductions: dict[Dimension, Reduction]
    budget: Budget
    share: Share
    head_step: int = 1

    def alone(self) -> Shared:
        """The sizes whose cost is nearest to the budget, of several dimensions the same share of each.

        Raises:
            OutOfReachError: the budget is.
        """
        every = {dim: self._allowed(dim) for dim in self.reductions}
        shares = sorted({size / getattr(self.full, dim) for dim, sizes in every.items() for size in sizes})
        found = [self._at(every, share) for share in shares]
        costs = [(self.cost(sizes), sizes) for sizes in found]
        within = [(cost, sizes) for cost, sizes in costs if sizes and cost <= self.budget.most]
        if not within:
            least, sizes = min(costs, key=lambda each: each[0])
            raise OutOfReachError(self._out_of_reach(least, sizes), least)
        return min(within, key=lambda each: abs(each[0] - self.budget.share))[1]

    def starts(self) -> list[Shared]:
        """One way for each set of the dimensions that reaches the budget: the same share of each.

        Raises:
            OutOfReachError: the budget is.
        """
        dims = list(self.reductions)
        found = [
            sizes
            for count in range(1, len(dims) + 1)
            for chosen in combinations(dims, count)
            if (sizes := self._start(chosen))
        ]
        return _each_once(found) or [self.alone()]  # which tries more sizes, or says how far they go

    def neighbours(self, sizes: Shared, step: float) -> list[Shared]:
        """The ways that take a step from one dimension for another, and give what that cannot take to the rest."""
        found = []
        for fewer, more in permutations(self.reductions, 2):
            size = sizes.get(fewer, self._whole(fewer, sizes))
            smaller = [each for each in self._grid(fewer) if each <= size - max(step * getattr(self.full, fewer), 1)]
            if smaller and (other := self.filled({**sizes, fewer: smaller[-1]}, more)):
                for rest in self.reductions:
                    other = self.filled(other, rest) or other if rest not in (fewer, more) else other
                found.append(other)
        return [each for each in _each_once(found) if not self._within(each, sizes)]

    def filled(self, sizes: Shared, dim: Dimension, share: float | None = None) -> Shared | None:
        """The sizes with as much of one dimension as the budget leaves, whatever there was; ``None`` if none fits.

        Args:
            sizes: of the dimensions that are cut.
            dim: the one whose size is free.
            share: what may be spent instead of the budget's share.
        """
        grid = self._grid(dim)
        low, high = 0, len(grid)  # A larger size costs more.
        while low < high:
            middle = (low + high) // 2
            fits = self.cost({**sizes, dim: grid[middle]}) <= (share or self.budget.share)
            low, high = (middle + 1, high) if fits else (low, middle)
        return self._cut({**sizes, dim: grid[low - 1]}) if low else None

    def finest(self, dims: Iterable[Dimension]) -> Dimension:
        """Of some dimensions the one that has the most sizes."""
        return max(dims, key=lambda dim: len(self._grid(dim)))

    def coarser(self, dims: Iterable[Dimension]) -> list[Dimension]:
        """The others, those of the fewest sizes first."""
        dims = list(dims)
        return sorted((dim for dim in dims if dim != self.finest(dims)), key=lambda dim: len(self._grid(dim)))

    def cost(self, sizes: Shared) -> float:
        """In units of the whole network's."""
        return self.share(cut_to(self.full, sizes))

    def corrected(self, factor: float) -> "Space":
        """The same where everything costs so many times as much."""
        return replace(self, share=lambda sizes: factor * self.share(sizes))

    def _start(self, dims: tuple[Dimension, ...]) -> Shared | None:
        every = {dim: self._grid(dim) for dim in dims}
        for share in sorted({size / getattr(self.full, dim) for dim in dims for size in every[dim]}, reverse=True):
            sizes = self._at(every, share)
            if self.cost(sizes) <= self.budget.most:
                ways = (sizes, self.filled(sizes, self.finest(dims)) or sizes)
                return min(ways, key=lambda each: abs(self.cost(each) - self.budget.share))
        return None

    def _within(self, some: Shared, others: Shared) -> bool:
        """Whether nothing is larger than in another way, so that it can only be worse."""

        def size(sizes: Shared, dim: Dimension) -> int:
            return sizes.get(dim, self._whole(dim, sizes))

        return all(size(some, dim) <= size(others, dim) for dim in self.reductions)

    def _whole(self, dim: Dimension, sizes: Shared) -> int:
        """What a dimension has where it is not cut; of the feed-forward width that is what the hidden size leaves."""
        narrow = dim == "intermediate" and "hidden" in sizes
        return getattr(narrowed(self.full, sizes["hidden"]) if narrow else self.full, dim)

    def _at(self, every: dict[Dimension, list[int]], share: float) -> Shared:
        """The same share of some dimensions, of the feed-forward width that the hidden size leaves."""
        sizes: Shared = {}
        for dim in sorted(every, key=lambda dim: dim == "intermediate"):
            whole = self._whole(dim, sizes)
            sizes[dim] = min(every[dim], key=lambda size: abs(size - share * whole))
        return self._cut(sizes)

    def _cut(self, sizes: Shared) -> Shared:
        """Without the dimensions that stay whole."""
        kept = ((dim, sizes[dim]) for dim in self.reductions if dim in sizes)
        return {dim: size for dim, size in kept if size < self._whole(dim, sizes)}

    def _allowed(self, dim: Dimension) -> list[int]:
        sizes = allowed_sizes(self.full, dim, self.reductions[dim].strategy)
        if dim != "hidden" or self.head_step == 1:
            return sizes
        step = self.head_step * (self.full.hidden // self.full.head_size)
        return [size for size in sizes if size % step == 0]

    def _grid(self, dim: Dimension) -> list[int]:
        """The sizes that a search tries."""
        allowed, whole = self._allowed(dim), getattr(self.full, dim)
        if dim not in _GRID or len(allowed) <= _GRID[dim]:
            return allowed
        return sorted(
            {min(allowed, key=lambda size: abs(size - whole * part / _GRID[dim])) for part in range(1, _GRID[dim] + 1)}
        )

    def _out_of_reach(self, least: float, sizes: Shared) -> str:
        dim, quantity = "+".join(self.reductions), self.budget.quantity
        smallest = " and ".join(f"{name}={size}" for name, size in sizes.items())
        return (
            f"budget={self.budget.budget} is out of reach of dim={dim}: even {smallest} leaves {least:.0%} of the"
            f" {quantity}. Give {quantity}:{least:.2f} or more, or more dimensions."
        )


def _each_once(found: list[Shared]) -> list[Shared]:
    return [sizes for index, sizes in enumerate(found) if sizes not in found[:index]]
