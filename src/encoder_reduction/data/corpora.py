"""Corpora by name: two-class sentiment text as train, validation and test splits.

Every corpus is a ``DatasetDict`` with the splits ``train``, ``validation`` and ``test`` and the columns
``id`` (text), ``text`` and ``label`` (0 negative, 1 positive).
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from datasets.exceptions import DatasetsError
from sklearn.model_selection import train_test_split

from ..errors import UserError
from ..plan.sections import Corpus, RunPlan
from . import hub, packaged_text

LABELS = ("negative", "positive")
FEATURES = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=list(LABELS))})
SPLITS = ("train", "validation", "test")

# Labels that are words, whatever their case.
_WORDS = {"negative": 0, "neg": 0, "false": 0, "0": 0, "positive": 1, "pos": 1, "true": 1, "1": 1}
_SHOWN = 5
_TEXT = ("string", "large_string")

# Which examples validate is part of the corpus, not of a run, so every seed selects on the same ones.
_VALIDATION_SEED = 0


def load(corpus: Corpus) -> DatasetDict:
    """All of a corpus.

    Raises:
        UserError: it cannot be found or fetched, a split is empty, or its labels are not two classes.
    """
    kind, _, name = corpus.source.partition(":")
    data = _from_package(name) if kind == "packaged" else _from_files(corpus)
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


def revision(corpus: Corpus) -> str:
    """The commit of the corpus, ``local`` for a folder, ``packaged`` for the text of a pinned package."""
    if corpus.source.startswith("packaged:"):
        return "packaged"
    return hub.snapshot("dataset", corpus.source, corpus.revision).revision


def _from_files(corpus: Corpus) -> DatasetDict:
    """A corpus of csv, json or parquet files, out of the hub or a folder."""
    folder = hub.snapshot("dataset", corpus.source, corpus.revision).folder
    if not folder.is_dir():
        raise UserError(
            f"Corpus '{corpus.source}' is a file: give the folder that has it, with files named train and test"
            " (train.csv, test.csv; json and parquet also)."
        )
    try:
        raw = load_dataset(str(folder))
    except (OSError, ValueError, DatasetsError) as error:
        cause = error.__cause__ or error
        if getattr(cause, "errno", None) is not None:
            raise cause from None  # the disk's, which has its own sentence
        reason = " ".join(str(cause).split()).rstrip(".")
        raise UserError(
            f"Corpus '{corpus.source}' could not be read ({reason}); it needs csv, json or parquet files of its"
            " train and test splits."
        ) from error
    missing = [split for split in ("train", "test") if split not in raw]
    if missing:
        raise UserError(f"Corpus '{corpus.source}' has no {' and no '.join(missing)} split; it has {', '.join(raw)}.")
    read = {split: _numbered(raw[split], split, corpus) for split in SPLITS if split in raw}
    train, test = read["train"], read["test"]
    if "validation" in read:
        return DatasetDict(train=train, validation=read["validation"], test=test)
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


def _numbered(data: Dataset, split: str, corpus: Corpus) -> Dataset:
    """The columns that a corpus has here, out of those that it has in its files."""
    columns = [corpus.text_column, corpus.label_column]
    if missing := [column for column in columns if column not in data.column_names]:
        raise UserError(
            f"The {split} split of corpus '{corpus.name}' lacks the column {' and '.join(missing)}; it has"
            f" {', '.join(data.column_names)}: name them with text_column and label_column."
        )
    data = data.select_columns(columns)
    for column, name in zip(columns, ("text", "label"), strict=True):
        data = data.rename_column(column, name) if column != name else data
    if data.features["text"].dtype not in _TEXT or data.data.column("text").null_count:
        raise UserError(f"The column {columns[0]} of corpus '{corpus.name}' must have text in every {split} example.")
    if data.features["label"].dtype in (*_TEXT, "bool"):
        data = _with_numbers(data, split, corpus)
    labels = set(data.unique("label"))
    if not labels <= {0, 1}:
        raise UserError(
            f"The {split} split of corpus '{corpus.name}' has the labels {_some(labels)}; two classes are needed:"
            " 0 and 1, or their names."
        )
    data = data.add_column("id", [f"{split}-{i}" for i in range(len(data))])
    return data.cast_column("label", FEATURES["label"])


def _with_numbers(data: Dataset, split: str, corpus: Corpus) -> Dataset:
    """Labels that are words as 0 and 1."""
    found = {label: _WORDS.get(str(label).strip().lower()) for label in data.unique("label")}
    if None in found.values():
        raise UserError(
            f"The {split} split of corpus '{corpus.name}' has the labels {_some(found)}; allowed are 0 and 1, or:"
            f" {', '.join(_WORDS)}."
        )
    numbers = [found[label] for label in data["label"]]
    return data.remove_columns("label").add_column("label", numbers)


def _some(labels: Iterable[object]) -> str:
    shown = sorted(map(str, labels))
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")


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


def draw_splits(plan: RunPlan) -> DatasetDict:
    """The plan's corpus, each split cut to the examples that the plan asks for, stratified."""
    data, settings = load(plan.corpus), plan.fine_tuning
    return DatasetDict(
        train=draw(data["train"], settings.max_train_examples, plan.seed),
        # What selects and what is reported stays the same whatever the seed.
        validation=draw(data["validation"], settings.max_validation_examples, 0),
        test=draw(data["test"], settings.max_test_examples, 0),
    )
