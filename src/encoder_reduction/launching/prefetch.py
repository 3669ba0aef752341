"""Everything that a study needs from elsewhere, fetched and tried before it starts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from ..data import cache, corpora, hub, inputs
from ..data.tokenisation import tokenise
from ..models import checkpoints
from ..plan.sections import Checkpoint, Corpus, RunPlan


@dataclass(frozen=True)
class Fetched:
    """One thing that lies on this machine now and loads.

    Attributes:
        what: ``checkpoint`` or ``corpus``.
        source: hub id, folder, or packaged name.
        revision: as :func:`..data.inputs.revision` gives it.
        holds: its size in a person's units.
        megabytes: size on disk in 1e6 bytes; ``None`` for what a package brings.
        folder: where it is.
    """

    what: str
    source: str
    revision: str
    holds: str
    megabytes: float | None
    folder: str


def fetch_all(wanted: list[Checkpoint | Corpus]) -> Iterator[Fetched]:
    """Fetch and load one after the other; what is on this machine already is compared with the hub.

    With ``HF_HUB_OFFLINE`` set it is only loaded.

    Raises:
        UserError: one cannot be fetched or loaded.
    """
    for source in wanted:
        yield _checkpoint(source) if isinstance(source, Checkpoint) else _corpus(source)


def _checkpoint(checkpoint: Checkpoint) -> Fetched:
    where = _fetched("model", checkpoint)
    model, _ = checkpoints.load(checkpoint, seed=0)
    holds = f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters"
    return Fetched("checkpoint", checkpoint.source, inputs.revision(checkpoint) or "", holds, *where)


def _corpus(corpus: Corpus) -> Fetched:
    where = _fetched("dataset", corpus)
    data = corpora.load(corpus)
    holds = " + ".join(f"{len(data[split]):,} {split}" for split in data)
    return Fetched("corpus", corpus.source, inputs.revision(corpus) or "", holds, *where)


def _fetched(kind: hub.Kind, source: Checkpoint | Corpus) -> tuple[float | None, str]:
    if source.source.startswith("packaged:"):
        return None, str(cache.directory()) if kind == "dataset" else "the installed package"
    found = hub.snapshot(kind, source.source, source.revision)
    if found.revision != hub.LOCAL and not hub.is_offline_mode():
        found = hub.fetch(kind, source.source, source.revision)
    return found.megabytes, str(found.folder)


def tokenise_all(plans: Iterable[RunPlan]) -> Iterator[str]:
    """Tokenise what these plans train, select and report on; yields a line for each tokenizer and corpus.

    Raises:
        UserError: a checkpoint or corpus is not here and cannot be fetched.
    """
    done = set()
    for plan in plans:
        settings = plan.fine_tuning
        what = (plan.model, plan.corpus.name, plan.seed if settings.max_train_examples else None)
        if what in done:
            continue
        done.add(what)
        _, tokenizer = checkpoints.load(plan.checkpoint, plan.seed)
        data = corpora.draw_splits(plan)
        tokens = sum(sum(tokenise(data[split], tokenizer, settings.max_length)["length"]) for split in data)
        yield f"{plan.checkpoint.name} on {plan.corpus.name}: {sum(map(len, data.values())):,} texts, {tokens:,} tokens"


def as_table(fetched: list[Fetched]) -> str:
    """What was fetched, for people."""
    table = pd.DataFrame(fetched).rename(columns={"megabytes": "MB"})
    return table.to_markdown(index=False, floatfmt=",.0f", missingval="")
