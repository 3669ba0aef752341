"""Corpora by name: two-class sentiment text as train, validation and test splits.

Every corpus is a ``DatasetDict`` with the splits ``train``, ``validation`` and ``test`` and the columns
``id`` (text), ``text`` and ``label`` (0 negative, 1 positive).
"""

import hashlib

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from sklearn.model_selection import train_test_split

from . import packaged_text
from .errors import UserError
from .presets import Corpus

LABELS = ("negative", "positive")
FEATURES = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=list(LABELS))})
SPLITS = ("train", "validation", "test")

# Which examples validate is part of the corpus, not of a run, so every seed selects on the same ones.
_VALIDATION_SEED = 0


def load(corpus: Corpus) -> DatasetDict:
    """All of a corpus.

    Raises:
        UserError: it cannot be found or fetched, a split is empty, or its labels are not two classes.
    """
    kind, _, name = corpus.source.partition(":")
    data = _from_package(name) if kind == "packaged" else _from_hub(corpus)
    for split in SPLITS:
        _check(corpus.name, split, data[split])
    return data


def draw(data: Dataset, examples: int | None, seed: int, label: str = "label") -> Dataset:
    """A stratified subset in random order; everything, in order, where fewer examples exist.

    Stratified and shuffled because corpora are often stored sorted by label: the first thousand
    reviews of IMDb are all negative.
    """
    if examples is None or examples >= len(data):
        return data
    chosen, _ = train_test_split(
        np.arange(len(data)), train_size=examples, stratify=np.asarray(data[label]), random_state=seed
    )
    return data.select(chosen)


def fingerprint(*datasets: Dataset) -> str:
    """A digest of ids, labels and texts, in order."""
    digest = hashlib.sha256()
    for data in datasets:
        for batch in data.iter(batch_size=1000):
            for row in zip(batch["id"], batch["label"], batch["text"], strict=True):
                digest.update("\x1f".join(map(str, row)).encode())
                digest.update(b"\x1e")
        digest.update(b"\x1d")
    return digest.hexdigest()[:16]


def _from_package(name: str) -> DatasetDict:
    splits = packaged_text.load(name)
    return DatasetDict({split: _dataset(splits[split]) for split in SPLITS})


def _from_hub(corpus: Corpus) -> DatasetDict:
    try:
        raw = load_dataset(corpus.source, revision=corpus.revision)
    except (OSError, ValueError, ConnectionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"Corpus '{corpus.source}' could not be loaded ({reason}); give a hub id with a network,"
            " or preset=packaged, which needs none once its text is cached."
        ) from error
    missing = [split for split in ("train", "test") if split not in raw]
    if missing:
        raise UserError(f"Corpus '{corpus.source}' has no {' and no '.join(missing)} split; it has {', '.join(raw)}.")
    train, test = (_numbered(raw[split], split) for split in ("train", "test"))
    if "validation" in raw:
        return DatasetDict(train=train, validation=_numbered(raw["validation"], "validation"), test=test)
    if corpus.validation_examples is None or corpus.validation_examples >= len(train):
        raise UserError(
            f"Corpus '{corpus.name}' has no validation split: set its validation_examples in the preset"
            f" to a number below its {len(train)} training examples."
        )
    _check(corpus.name, "train", train)
    kept, carved = train_test_split(
        np.arange(len(train)),
        test_size=corpus.validation_examples,
        stratify=np.asarray(train["label"]),
        random_state=_VALIDATION_SEED,
    )
    return DatasetDict(train=train.select(np.sort(kept)), validation=train.select(np.sort(carved)), test=test)


def _numbered(data: Dataset, split: str) -> Dataset:
    missing = {"text", "label"} - set(data.column_names)
    if missing:
        lacks, has = " and ".join(sorted(missing)), ", ".join(data.column_names)
        raise UserError(f"The {split} split lacks the column {lacks}; it has {has}.")
    data = data.select_columns(["text", "label"]).add_column("id", [f"{split}-{i}" for i in range(len(data))])
    labels = set(data.unique("label"))
    if not labels <= {0, 1}:
        raise UserError(f"The {split} split has the labels {sorted(labels)}; two classes, 0 and 1, are needed.")
    return data.cast_column("label", FEATURES["label"])


def _dataset(rows: list[tuple[str, str, int]]) -> Dataset:
    ids, texts, labels = zip(*rows, strict=True)
    return Dataset.from_dict({"id": ids, "text": texts, "label": labels}, features=FEATURES)


def _check(name: str, split: str, data: Dataset) -> None:
    if len(data) == 0:
        raise UserError(f"Corpus '{name}' has no example in its {split} split; at least one of each class is needed.")
    labels = sorted(set(data.unique("label")))
    if labels != [0, 1]:
        raise UserError(
            f"The {split} split of corpus '{name}' has the labels {labels}; two classes, 0 and 1, are needed."
        )
