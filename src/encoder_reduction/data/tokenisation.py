"""Texts as token ids: computed once for each tokenizer, length and text, and shared by all runs of a machine."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, load_from_disk
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from . import cache, corpora

# Changes when what is stored does.
_FORMAT = 1
# Below, starting another process takes longer than it saves.
_EXAMPLES_A_PROCESS = 5000


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


def _digest(data: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    """Of all that the token ids depend on; the tokenizer's current padding and truncation are not among that."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = {key: value for key, value in backend.items() if key not in ("padding", "truncation")}
    gives = [type(tokenizer).__name__, tokenizer.model_input_names]
    identity = [_FORMAT, corpora.fingerprint(data), gives, rules, max_length]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
