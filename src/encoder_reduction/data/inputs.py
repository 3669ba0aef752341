"""What a checkpoint or corpus is, beyond its name: the commit, or what the files of a folder hold."""

from pathlib import Path

from ..errors import UserError
from ..plan.sections import Checkpoint, Corpus, RunPlan
from . import contents, hub, splits

# What a checkpoint is loaded from: configuration, weights, vocabulary, and code of its own.
_OF_CHECKPOINTS = {".json", ".safetensors", ".bin", ".txt", ".model", ".py"}

_KINDS: dict[type, hub.Kind] = {Checkpoint: "model", Corpus: "dataset"}


def revision(source: Checkpoint | Corpus) -> str | None:
    """What identifies the contents, as far as this machine knows; nobody is asked and nothing is fetched.

    Returns:
        ``packaged``, ``local-`` and a digest of the files that are read, or a commit of the hub; ``None`` where the
        source is not here.
    """
    if source.source.startswith("packaged:"):
        return "packaged"
    folder = Path(source.source).expanduser()
    if not folder.exists():
        return hub.known_revision(_KINDS[type(source)], source.source, source.revision)
    files = _of_corpus(folder) if isinstance(source, Corpus) else _of_checkpoint(folder)
    return f"{hub.LOCAL}-{contents.digest(files)}" if files else None


def revisions(plan: RunPlan) -> list[str | None]:
    """Those of checkpoint and corpus, and of what the plan builds on, in order; those of packages are left out."""
    own = [revision(each) for each in (plan.checkpoint, plan.corpus) if not each.source.startswith("packaged:")]
    return own + [each for source in plan.builds_on for each in revisions(source)]


def fetch(plan: RunPlan) -> None:
    """See to it that checkpoint and corpus are on this machine.

    Raises:
        UserError: one is not, and cannot be fetched.
    """
    for source in (plan.checkpoint, plan.corpus):
        if not source.source.startswith("packaged:"):
            hub.snapshot(_KINDS[type(source)], source.source, source.revision)


def _of_corpus(folder: Path) -> dict[str, Path]:
    try:
        return splits.find(folder, str(folder)).contents()
    except UserError:  # The run says so, when it loads it.
        return {}


def _of_checkpoint(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.glob("*") if path.suffix in _OF_CHECKPOINTS and path.is_file()}
