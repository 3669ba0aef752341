"""Networks, tokenizers and texts that are made in a blink, of any family."""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

# Where the Trainer puts a model.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def small(
    family: str, layers: int, heads: int, head_size: int, intermediate: int, spread: float = 0.02
) -> PreTrainedModel:
    """A classifier of random weights of this spread, the same at every call, with 50 words and 30 positions."""
    hidden = heads * head_size
    shared = {"vocab_size": 50, "max_position_embeddings": 30, "pad_token_id": 0, "initializer_range": spread}
    torch.manual_seed(0)
    if family == "distilbert":
        config = DistilBertConfig(dim=hidden, n_heads=heads, n_layers=layers, hidden_dim=intermediate, **shared)
        return DistilBertForSequenceClassification(config).eval()
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
    sizes["intermediate_size"] = intermediate
    if family == "bert":
        return BertForSequenceClassification(BertConfig(**sizes, **shared)).eval()
    return RobertaForSequenceClassification(RobertaConfig(**sizes, **shared)).eval()


def random_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Four texts of twelve words, two of them shorter by three."""
    tokens = torch.randint(1, 50, (4, 12), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(tokens)
    mask[:2, 9:] = 0
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": torch.tensor([0, 1, 0, 1])}


def small_tokenizer(*words: str, **more: object) -> PreTrainedTokenizerFast:
    """Knows these words, from token 4 on."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    known = {word: index for index, word in enumerate((*special, *words))}
    backend = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{"model_max_length": 28, **names, **more})


def words(size: int = 50, **more: object) -> PreTrainedTokenizerFast:
    """A tokenizer of so many tokens: [PAD], [UNK], [CLS], [SEP], good, bad, film, plot, w8, w9, ..."""
    known = ["good", "bad", "film", "plot", *(f"w{i}" for i in range(8, size))][: size - 4]
    return small_tokenizer(*known, **{"model_max_length": int(1e30), **more})


def small_texts(count: int, seed: int) -> Dataset:
    """Tokenised texts of five to twenty words; the label says whether the first is of the first half of the words."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 21, (count,), generator=draw).tolist()
    rows = [torch.randint(4, 50, (length,), generator=draw).tolist() for length in lengths]
    return Dataset.from_dict(
        {
            "input_ids": rows,
            "attention_mask": [[1] * length for length in lengths],
            "labels": [int(row[0] < 27) for row in rows],
            "length": lengths,
        }
    )
