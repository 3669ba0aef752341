"""What a network says of a tokenised split: its logits, example by example."""

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from ..plan.precision import compute_dtype
from .batches import by_length
from .devices import fast

EVALUATION_BATCH = 64


def logits_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokenised: Dataset,
    precision: str,
    progress: bool = False,
) -> np.ndarray:
    """Logits ``(examples, classes)`` of a tokenised split, in its order, as float32.

    Args:
        model: a classifier. Float32 weights compute under autocast at the precision, as in training; weights that have
            been converted (:func:`.profiling.inference.for_inference`) as they are.
        tokenizer: pads.
        tokenised: what the network reads, and ``length``.
        precision: the plan's.
        progress: show a progress bar.
    """
    order = by_length(tokenised)
    read = [name for name in tokenised.column_names if name in tokenizer.model_input_names]
    rows, pad, found = tokenised.select_columns(read), DataCollatorWithPadding(tokenizer), []
    model.eval()
    with torch.no_grad(), fast(model), _arithmetic(model, precision):
        for start in tqdm(range(0, len(order), EVALUATION_BATCH), disable=not progress):
            batch = pad(rows[order[start : start + EVALUATION_BATCH]]).to(model.device)
            found.append(model(**batch).logits.float())
    return torch.cat(found).cpu().numpy()[np.argsort(order)]


def _arithmetic(model: PreTrainedModel, precision: str) -> torch.autocast:
    """Autocast for float32 weights, which are converted once for all batches."""
    dtype = compute_dtype(precision)
    enabled = model.dtype == torch.float32 and dtype != torch.float32
    return torch.autocast(model.device.type, dtype=dtype, enabled=enabled)
