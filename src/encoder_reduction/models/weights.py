"""The weights of a folder, all of them or a sentence: what would be drawn at random in silence is refused."""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from ..errors import UserError, one_line
from .architectures import family_named

_LOGGER = logging.getLogger(__name__)

# What torch.compile, activation checkpointing and FSDP put between the names of modules, outside or within the encoder.
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
_POINTER = b"version https://git-lfs"
# Files that say what a tokenizer or a network is; the suffixes of weights are others.
_TEXTS = (".json", ".txt", ".model", ".codes")
_NAMED = 3


@contextmanager
def readable(folder: Path, what: str) -> Iterator[None]:
    """Whatever is raised while a folder is read becomes one sentence, which names the file that is to blame.

    Raises:
        UserError: the block raised, or a file is a git-lfs pointer.
    """
    files = [*_weight_files(folder), *(file for file in sorted(folder.iterdir()) if file.suffix in _TEXTS)]
    for file in files:
        with file.open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                raise UserError(
                    f"{what} could not be loaded: {file} is a git-lfs pointer, not the file itself; run 'git lfs pull'"
                    " there, or copy the file from where the checkpoint comes from."
                )
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of any kind: safetensors, tokenizers and pickle each have their own
        if broken := next((file for file in _weight_files(folder) if not _opens(file)), None):
            raise UserError(
                f"{what} could not be loaded: {broken} is damaged or cut off; copy it once more."
            ) from error
        raise UserError(
            f"{what} could not be loaded ({_first_sentence(error)}); give a hub id, or a local folder that"
            " save_pretrained wrote with model and tokenizer."
        ) from error


def whole(folder: Path, what: str, headless: str | None = None) -> PreTrainedModel:
    """The classifier in a folder: every tensor as it is stored, in float32.

    Args:
        folder: where ``config.json`` and the weights are.
        what: what sentences call the folder.
        headless: what is said of a stranger's, where the classifier's last layer is what is missing; names that
            wrappers have put a prefix before are read as well.

    Raises:
        UserError: a tensor of encoder or head is missing, is too many, has another shape or is not finite.
    """
    with readable(folder, what):
        model, report = _read(folder)
        family = family_named(model.config.model_type)
        anchor = f"{family.backbone}.{family.embeddings[0]}.weight"
        if headless and anchor in report[0]:
            model, report = _read_renamed(folder, what, report, anchor, "ours") or (model, report)
    if headless and f"{family.head_output}.weight" in report[0] and anchor not in report[0]:
        raise UserError(f"{what} {headless}")
    _refuse(what, *report)
    _refuse_infinite(what, model.state_dict())
    return model


def encoder(folder: Path, config: PretrainedConfig, what: str) -> dict[str, torch.Tensor]:
    """The encoder's tensors in a checkpoint of any task, by their names in the encoder, in float32.

    Args:
        folder: where ``config.json`` and the weights are.
        config: of a classifier of this family.
        what: what sentences call the checkpoint.

    Returns:
        All of the encoder's state; only a pooler may be absent, which masked language models do not have.

    Raises:
        UserError: the weights cannot be read, or any other tensor of the encoder is missing, is too many, has another
            shape or holds values that are not finite.
    """
    family = family_named(config.model_type)
    with readable(folder, what):
        model, report = _read(folder, config=config)
        backbone = model.get_submodule(family.backbone)
        names = {f"{family.backbone}.{name}" for name in backbone.state_dict()}
        missing, *_ = report
        if missing & names:
            anchor = f"{family.embeddings[0]}.weight"
            again = _read_renamed(folder, what, report, anchor, "the encoder's", config=config)
            model, report = again or (model, report)
            backbone = model.get_submodule(family.backbone)
    missing, unexpected, mismatched = report
    parts = {name for name, _ in backbone.named_children()}
    bare = {name: name.removeprefix(f"{family.backbone}.") for name in unexpected}
    drawn = {name for name in missing & names if family.pooler and name.startswith(f"{family.pooler}.")}
    _refuse(
        what,
        (missing & names) - drawn,
        {name for name, stripped in bare.items() if stripped.partition(".")[0] in parts},
        mismatched & names,
    )
    kept = {name: tensor for name, tensor in backbone.state_dict().items() if f"{family.backbone}.{name}" not in drawn}
    _refuse_infinite(what, kept)
    return kept


_Report = tuple[set[str], set[str], set[str]]


def _read(folder: Path, **more: Any) -> tuple[PreTrainedModel, _Report]:
    """A classifier, and the names that were missing, not expected, and of another shape."""
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **more
    )
    mismatched = {name for name, *_ in report["mismatched_keys"]}
    return model, (set(report["missing_keys"]), set(report["unexpected_keys"]), mismatched)


def _read_renamed(
    folder: Path, what: str, report: _Report, anchor: str, whose: str, **more: Any
) -> tuple[PreTrainedModel, _Report] | None:
    """What :func:`_read` gives without what stands before the names, which is said; nothing where that is not known."""
    if not (renamed := _renaming(report[1], anchor)):
        return None
    _LOGGER.warning("%s has other names for its weights (%s); read as %s.", what, _some(report[1]), whose)
    return _read(folder, key_mapping=dict.fromkeys(renamed, ""), **more)


def _renaming(unexpected: Iterable[str], anchor: str) -> list[str]:
    """Patterns of what is too much in names: wrappers, and the one prefix before a tensor that every encoder has."""
    inner = [re.escape(wrapper) for wrapper in _WRAPPERS if any(wrapper in name for name in unexpected)]
    bare = [re.sub("|".join(map(re.escape, _WRAPPERS)), "", name) for name in unexpected]
    prefixes = {name.removesuffix(anchor) for name in bare if name.endswith(f".{anchor}")}
    outer = [f"^{re.escape(prefix)}" for prefix in prefixes]
    # A wrapper around the whole and one within are two; of two encoders under two prefixes, neither is the one.
    return [*(f"^{each}" for each in inner), *inner, *outer] if len(outer) < 2 else []


def _refuse(what: str, missing: set[str], unexpected: set[str], mismatched: set[str]) -> None:
    faults = {"missing": missing, "not part of the network": unexpected, "of another shape": mismatched}
    said = [f"{len(names)} {fault} ({_some(names)})" for fault, names in faults.items() if names]
    if said:
        raise UserError(
            f"{what} does not hold the network that its config.json describes: of its tensors, {', '.join(said)}; give"
            " the weights and the config.json that were saved together."
        )


def _refuse_infinite(what: str, state: dict[str, torch.Tensor]) -> None:
    if broken := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise UserError(f"{what} holds values that are not finite, in {_some(broken)}; give another checkpoint.")


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _weight_files(folder: Path) -> list[Path]:
    """What transformers reads: safetensors where there are any."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _opens(file: Path) -> bool:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                return True
        torch.load(file, map_location="meta", weights_only=True)
    except Exception:
        return False
    return True


def _first_sentence(error: Exception) -> str:
    return one_line(error).split(". ")[0].rstrip(".") or type(error).__name__
