"""Texts as token ids: computed once for each tokenizer, length and text, and shared by all runs of a machine."""

import hashlib
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, load_from_disk
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from . import cache, corpora

_LOGGER = logging.getLogger(__name__)

# Changes when what is stored does.
_FORMAT = 1
# Below, starting another process takes longer than it saves.
_EXAMPLES_A_PROCESS = 5000
# Settings that change no token: where the tokenizer was read from, and a length that each call states itself.
_NOT_RULES = ("model_max_length", "name_or_path", "is_local", "local_files_only")
# A vocabulary of words and their pieces leaves few tokens of its own language unknown. One in twenty is a script that
# it hardly knows; with more than nine in ten, texts differ by little but their lengths. Between the two, a small
# vocabulary may still tell texts apart: an unknown word counts once for each of its pieces.
_UNKNOWN_SAID, _UNKNOWN_REFUSED = 0.05, 0.9


def tokenise(data: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Token ids of each text, cut at ``max_length``, with the length that batches are grouped by.

    The first of several runs that start at once tokenises, the others wait for it and read.

    Args:
        data: ``id``, ``text`` and ``label``.
        tokenizer: of the model.
        max_length: tokens, special ones included.

    Returns:
        What the tokenizer gives, ``length`` and ``labels``, in the same order; read from disk as it is used.
    """
    folder = cache.directory() / "tokenised" / _digest(data, tokenizer, max_length)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _store(data, tokenizer, max_length, folder)
    return load_from_disk(str(folder))


def _store(data: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, folder: Path) -> None:
    """Renamed into place, so that a folder that is there is whole."""

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        encoded = tokenizer(batch["text"], truncation=True, max_length=max_length)
        return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]], "labels": batch["label"]}

    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    processes = min(_cores(), len(data) // _EXAMPLES_A_PROCESS)
    if processes > 1:
        print(f"Tokenising {len(data):,} texts, once for all runs.", file=sys.stderr)
    with TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        tokenised = data.map(
            encode,
            batched=True,
            remove_columns=data.column_names,
            num_proc=processes if processes > 1 else None,
            cache_file_name=f"{scratch}/tokenised.arrow",
        )
        tokenised.save_to_disk(str(partial))
    partial.rename(folder)


def _cores() -> int:
    """Those that this process may use: a job on a node of 128 may have 8."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_words(tokenised: Dataset, tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    """Hold the share of unknown words in tokenised texts against what a tokenizer of their language leaves.

    Args:
        tokenised: what :func:`tokenise` returned.
        tokenizer: that did it; one of bytes knows no unknown words.
        what: what sentences call the texts.

    Raises:
        UserError: more than nine in ten tokens are unknown.
    """
    if tokenizer.unk_token_id is None:
        return
    ids = tokenised.data.column("input_ids").combine_chunks().flatten()
    special = pa.array(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}, ids.type)
    words = len(ids) - (pc.sum(pc.is_in(ids, special)).as_py() or 0)
    unknown = pc.sum(pc.equal(ids, tokenizer.unk_token_id)).as_py() or 0
    share = unknown / max(words, 1)
    said = f"{share:.0%} of the tokens of {what} are unknown to the tokenizer ({unknown:,} of {words:,})"
    if share > _UNKNOWN_REFUSED:
        raise UserError(f"{said}; give a checkpoint whose tokenizer was made for such texts.")
    if share > _UNKNOWN_SAID:
        _LOGGER.warning("%s: check that the checkpoint is one for such texts.", said)


def _digest(data: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    """Of all that the token ids depend on; the tokenizer's current padding and truncation are not among that."""
    gives = [type(tokenizer).__name__, tokenizer.model_input_names]
    identity = [_FORMAT, corpora.fingerprint(data), gives, _rules(tokenizer), max_length]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def _rules(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What the tokenizer does with a text: of one written in Python, its files and settings."""
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        return {key: value for key, value in backend.items() if key not in ("padding", "truncation")}
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    settings = json.loads(files.pop("tokenizer_config.json"))
    kept = {key: value for key, value in settings.items() if key not in _NOT_RULES}
    return {"settings": kept, "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}}
