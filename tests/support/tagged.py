"""A checkpoint and a corpus of sixteen texts a split that say which split they are of, as files."""

import pandas as pd
from networks import small, small_tokenizer

from encoder_reduction.data.corpora import SPLITS
from encoder_reduction.plan.sections import Checkpoint, Corpus

WORDS = [*SPLITS, "good", "bad", "film", "plot", "so"]


def checkpoint(folder):
    """A network of two layers, and a tokenizer that knows a dozen words."""
    small_tokenizer(*WORDS).save_pretrained(folder)
    small("bert", layers=2, heads=4, head_size=4, intermediate=32, spread=0.2).save_pretrained(folder)
    return Checkpoint(name="two-layers", source=str(folder))


def corpus(folder):
    """Sixteen texts a split, each with the split's name in it; the longest are cut."""
    folder.mkdir()
    for split in SPLITS:
        texts = [f"{split} {word}" + " so film plot" * more for more in range(8) for word in ("bad", "good")]
        pd.DataFrame({"text": texts, "label": [0, 1] * 8}).to_csv(folder / f"{split}.csv", index=False)
    return Corpus(name="tagged", source=str(folder))
