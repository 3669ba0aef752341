"""Calibration batches: the training texts that criteria and corrections look at."""

import numpy as np
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from .corpora import draw

_BATCH = 32


def batches(
    tokenised: Dataset, tokenizer: PreTrainedTokenizerBase, examples: int, seed: int, device: torch.device
) -> list[dict[str, torch.Tensor]]:
    """A seeded, stratified subset of a tokenised training split, in batches of similar length.

    Returns:
        Dictionaries of ``input_ids`` and ``attention_mask`` ``(batch, tokens)`` and ``labels`` ``(batch,)``.
    """
    chosen = draw(tokenised, examples, seed, label="labels")
    chosen = chosen.select(np.argsort(chosen["length"], kind="stable")).remove_columns("length")
    collate = DataCollatorWithPadding(tokenizer)
    rows = [chosen[start : start + _BATCH] for start in range(0, len(chosen), _BATCH)]
    return [{name: tensor.to(device) for name, tensor in collate(batch).items()} for batch in rows]
