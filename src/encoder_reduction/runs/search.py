"""How a budget is shared out among several dimensions.

Ways are told apart by what they cost; each that is tried is cut and refitted, and judged by how far its predictions are
from the whole network's. The best few are recovered for a short while, since rankings change in the first steps of
training (Muralidharan et al. 2024, "Minitron", table 13), and one is taken.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..models.architectures import Sizes, sizes_of
from ..plan.sections import SPREADING, Dimension, Reduction
from ..reductions.budgets import STEPS, Shared, Space
from ..training.recorder import NonFiniteLossError
from .judging import Judge, Scores
from .timing import Timings

# How far a network may lie from the budget before its sizes are solved once more.
_MISS = 0.03
# How much of a budget must be left for more than the finest dimension to be given of it.
_MUCH = 0.1
# Ways that are recovered for a short while before one of them is taken.
_FINALISTS = 3
_OTHER_SPREAD = {"uniform": "global", "global": "uniform"}


@dataclass
class Candidate:
    """One way to meet a budget; what is not known of it is ``None``.

    Attributes:
        sizes: what stays of each dimension that is cut.
        spread: how heads and feed-forward units are spread over the layers.
        told: its cost in units of the whole network's, by formula or latency table.
        architecture: what it leaves, layer by layer; known once it was cut.
        achieved: the same of what the cut has left, layer by layer: by formula, or measured beside the whole network.
        refitted: its scores after cutting and refitting.
        recovered: its scores after a short recovery.
        verdict: why it was taken, or was not.
    """

    sizes: Shared
    spread: dict[Dimension, str]
    told: float
    architecture: Sizes | None = None
    achieved: float | None = None
    refitted: Scores | None = None
    recovered: Scores | None = None
    verdict: str = ""

    @property
    def key(self) -> str:
        """What it is, in one line."""
        return ", ".join(f"{dim} {size} {self.spread.get(dim, '')}".strip() for dim, size in self.sizes.items())


@dataclass
class Search:
    """Tries ways to meet a budget, and keeps on disk what is known of each, so that it goes on where it was.

    Attributes:
        space: the ways that there are.
        judge: cuts and scores.
        timings: measures inference times; ``None`` where the budget is not of time.
        folder: where what is known is kept.
        progress: show a progress bar.
        candidates: what was tried, in order.
    """

    space: Space
    judge: Judge
    timings: Timings | None
    folder: Path
    progress: bool = True
    candidates: dict[str, Candidate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._file = self.folder / "search.json"
        # How much more networks have come to than was told.
        self._factor = 1.0
        self._known: dict[str, Any] = json.loads(self._file.read_text()) if self._file.is_file() else {}

    def alone(self) -> Candidate:
        """The way of a single dimension, or of several whose ways cannot be judged: the same share of each.

        Raises:
            UserError: the budget is out of reach.
        """
        found = self._try(self._candidate(self.space.alone()))
        if self._misses(self._achieve(found)):
            found.verdict = _missed(found)
            found = self._try(self._candidate(self.space.corrected(self._factor).alone()))
            self._achieve(found)
        return self._take(found, "the same share of each" if len(found.sizes) > 1 else "the nearest to the budget")

    def best(self) -> Candidate:
        """The best way of several dimensions that was found.

        Raises:
            UserError: the budget is out of reach.
        """
        tries = self.space.budget.search_candidates
        with tqdm(total=tries, desc="ways to cut", disable=not self.progress) as bar:
            started = [self._try(self._candidate(sizes), bar) for sizes in self.space.starts()[:tries]]
            for start in _nearest(started)[:2]:
                self._climb(start, bar)
        finalists = self._finalists()
        examples = self.space.budget.search_examples if self.judge.plan.fine_tuning.epochs else 0
        if not examples or len(finalists) == 1:
            return self._take(finalists[0], "nearest to the whole network after refitting")
        for each in tqdm(finalists, desc="short recoveries", disable=not self.progress):
            self._recover(each, examples)
        finalists = [each for each in finalists if each.recovered] or finalists
        if not finalists[0].recovered:
            return self._take(
                finalists[0], "nearest to the whole network after refitting; every short recovery diverged"
            )
        least = min(finalists, key=lambda each: each.recovered.loss)
        for each in finalists:
            each.verdict = (
                f"loss {each.recovered.loss:.3f} after a short recovery, the least {least.recovered.loss:.3f}"
            )
        taken = next(each for each in finalists if not each.recovered.loses_to(least.recovered))
        return self._take(
            taken, "the nearest whose loss after a short recovery is within a standard error of the least"
        )

    def reductions(self, candidate: Candidate) -> dict[Dimension, Reduction]:
        """What a candidate means for each dimension that it cuts."""
        return {
            dim: self.space.reductions[dim].model_copy(
                update={"size": size, "spread": candidate.spread.get(dim, "uniform")}
            )
            for dim, size in candidate.sizes.items()
        }

    def table(self) -> pd.DataFrame:
        """Every candidate: its sizes, its cost as a share of the whole network's, its scores, and why it lost."""
        rows = []
        for each in self.candidates.values():
            row: dict[str, Any] = {dim: getattr(each.architecture, dim) for dim in self.space.reductions}
            row |= {f"{dim}_spread": each.spread.get(dim) for dim in SPREADING if dim in self.space.reductions}
            row |= {"told": each.told, "achieved": each.achieved}
            for when in ("refitted", "recovered"):
                scores = getattr(each, when)
                row |= {f"{name}_{when}": getattr(scores, name, None) for name in ("divergence", "loss", "accuracy")}
            rows.append(row | {"verdict": each.verdict})
        return pd.DataFrame(rows)

    def _climb(self, here: Candidate, bar: tqdm) -> None:
        """Go from a way to a better one beside it, as long as there is one and ways may be tried."""
        for step in STEPS:
            while better := self._better(here, step, bar):
                here = better

    def _better(self, here: Candidate, step: float, bar: tqdm) -> Candidate | None:
        for other in self._beside(here, step):
            if other.key not in self.candidates and len(self.candidates) >= self.space.budget.search_candidates:
                return None
            if self._try(other, bar).refitted.divergence < here.refitted.divergence:
                return self.candidates[other.key]
        return None

    def _beside(self, here: Candidate, step: float) -> list[Candidate]:
        """The same sizes spread otherwise over the layers, and other sizes spread alike."""
        flipped = [
            self._candidate(here.sizes, {**here.spread, dim: _OTHER_SPREAD[how]}) for dim, how in here.spread.items()
        ]
        return flipped + [self._candidate(sizes, here.spread) for sizes in self.space.neighbours(here.sizes, step)]

    def _candidate(self, sizes: Shared, spread: dict[Dimension, str] | None = None) -> Candidate:
        planned = {dim: self.space.reductions[dim].spread for dim in SPREADING if dim in sizes}
        spread = {dim: (spread or {}).get(dim, how) for dim, how in planned.items()}
        found = Candidate(sizes, spread, self.space.cost(sizes))
        return self.candidates.get(found.key, found)

    def _try(self, candidate: Candidate, bar: tqdm | None = None) -> Candidate:
        """Cut, refit and judge, unless that was done."""
        if candidate.refitted is None:
            self.candidates[candidate.key] = candidate
            found = self._once(candidate, "refitted", self._judged)
            candidate.refitted, candidate.architecture = Scores(**found["scores"]), _sizes(found["architecture"])
            if bar is not None:
                bar.update()
        return candidate

    def _finalists(self) -> list[Candidate]:
        """The ways nearest to the whole network that have come to be within the budget."""
        ranked, chosen, seen = _nearest(self.candidates.values()), [], []
        for rank, each in enumerate(ranked):
            each.verdict = f"{rank} others are nearer to the whole network after refitting"
        for each in ranked:
            if each.architecture in seen:
                each.verdict = "the same network as one that is nearer"
                continue
            seen.append(each.architecture)
            found = self._as_achieved(each)
            if found and found.architecture not in [other.architecture for other in chosen]:
                chosen.append(found)
            if len(chosen) == _FINALISTS:
                break
        return _nearest(chosen) or ranked[:1]

    def _as_achieved(self, candidate: Candidate) -> Candidate | None:
        """A candidate that comes to be within the budget: this one, or its like of other sizes, if any."""
        tried = [candidate]
        if self._misses(candidate.told * self._factor) and (like := self._like(candidate)):
            candidate.verdict = f"told {candidate.told:.3f}, and others have come to more or less than told"
            tried = [like]
        if self._misses(self._achieve(tried[0])):
            tried[0].verdict = _missed(tried[0])
            if again := self._like(tried[0]):
                self._achieve(again)
                again.verdict = _missed(again)
                tried.append(again)
        within = [each for each in tried if each.achieved <= self.space.budget.most]
        return min(within, key=lambda each: abs(each.achieved - self.space.budget.share), default=None)

    def _like(self, candidate: Candidate) -> Candidate | None:
        """The same with as much of the finest dimension as the budget leaves by what was achieved last.

        Where it leaves much more than is there, the coarser ones are given what they can take of it first.
        """
        share, sizes = self.space.budget.share / self._factor, candidate.sizes
        if candidate.told < (1 - _MUCH) * share:
            for dim in self.space.coarser(self.space.reductions):
                sizes = self.space.filled(sizes, dim, share) or sizes
        sizes = self.space.filled(sizes, self.space.finest(self.space.reductions), share)
        return self._try(self._candidate(sizes, candidate.spread)) if sizes else None

    def _misses(self, cost: float) -> bool:
        return abs(cost / self.space.budget.share - 1) > _MISS

    def _achieve(self, candidate: Candidate) -> float:
        """What it comes to with as many heads and units in each layer as the cut has left."""
        if self.timings:
            find = self.timings.surely
            candidate.achieved = self._once(candidate, "achieved", lambda each: find(each.architecture))
        else:
            candidate.achieved = self.space.share(candidate.architecture)
        self._factor = candidate.achieved / candidate.told
        return candidate.achieved

    def _recover(self, candidate: Candidate, examples: int) -> None:
        def recovered(candidate: Candidate) -> dict[str, Any] | None:
            folder = self.folder / "recovery"
            try:
                return asdict(self.judge.recover(self.reductions(candidate), examples, folder))
            except NonFiniteLossError:
                return None
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        scores = self._once(candidate, "recovered", recovered)
        candidate.recovered = Scores(**scores) if scores else None
        candidate.verdict = "diverged in a short recovery"

    def _judged(self, candidate: Candidate) -> dict[str, Any]:
        model = self.judge.cut(self.reductions(candidate)).model
        return {"scores": asdict(self.judge.score(model)), "architecture": asdict(sizes_of(model))}

    def _take(self, candidate: Candidate, why: str) -> Candidate:
        candidate.verdict = f"taken: {why}"
        return candidate

    def _once(self, candidate: Candidate, what: str, find: Callable[[Candidate], Any]) -> Any:
        """What is known of a candidate, also from before an interruption."""
        name = f"{candidate.key}: {what}"
        if name not in self._known:
            self._known[name] = find(candidate)
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_suffix(".partial")
            partial.write_text(json.dumps(self._known, indent=1))
            partial.replace(self._file)
        return self._known[name]


def _sizes(values: dict[str, Any]) -> Sizes:
    return Sizes(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _nearest(candidates: Iterable[Candidate]) -> list[Candidate]:
    tried = [each for each in candidates if each.refitted]
    return sorted(tried, key=lambda each: each.refitted.divergence)


def _missed(candidate: Candidate) -> str:
    return f"comes to {candidate.achieved:.3f} of the whole network, told {candidate.told:.3f}"
