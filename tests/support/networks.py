"""Networks and batches that are built in a blink, of any family."""

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)


def small(family: str, layers: int, heads: int, head_size: int, intermediate: int) -> PreTrainedModel:
    """A classifier of random weights, the same at every call, with 50 words and 30 positions."""
    hidden = heads * head_size
    shared = {"vocab_size": 50, "max_position_embeddings": 30, "pad_token_id": 0}
    torch.manual_seed(0)
    if family == "distilbert":
        config = DistilBertConfig(dim=hidden, n_heads=heads, n_layers=layers, hidden_dim=intermediate, **shared)
        return DistilBertForSequenceClassification(config).eval()
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
    sizes["intermediate_size"] = intermediate
    if family == "bert":
        return BertForSequenceClassification(BertConfig(**sizes, **shared)).eval()
    return RobertaForSequenceClassification(RobertaConfig(**sizes, **shared)).eval()


def random_batch() -> dict[str, torch.Tensor]:
    """Four texts of twelve words, two of them shorter by three."""
    tokens = torch.randint(1, 50, (4, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[:2, 9:] = 0
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": torch.tensor([0, 1, 0, 1])}
