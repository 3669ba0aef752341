"""Corpora by name: two-class sentiment text as train, validation and test splits.

Every corpus is a ``DatasetDict`` with the splits ``train``, ``validation`` and ``test`` and the columns
``id`` (text), ``text`` and ``label`` (0 negative, 1 positive).
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from sklearn.model_selection import train_test_split

from ..errors import UserError
from ..plan.sections import Corpus, RunPlan
from . import cache, cells, contents, hub, labels, packaged_text, splits

LABELS = ("negative", "positive")
FEATURES = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=list(LABELS))})
SPLITS = splits.SPLITS

# Changes when what is stored does.
_FORMAT = 1
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
    classes = np.asarray(data[label][:])
    counts = np.unique(classes, return_counts=True)[1]
    if counts.min() > 1 and len(counts) <= examples <= len(data) - len(counts):
        chosen, _ = train_test_split(np.arange(len(data)), train_size=examples, stratify=classes, random_state=seed)
        if len(np.unique(classes[chosen])) == len(counts):
            return data.select(chosen)
    return data.select(_nearly_stratified(classes, examples, seed))


def _nearly_stratified(classes: np.ndarray, examples: int, seed: int) -> np.ndarray:
    """As nearly stratified as there are examples, and one of each class at least where so many are asked for.

    For what scikit-learn refuses: to leave out fewer examples than there are classes, or a class of one example.
    """
    kinds, counts = np.unique(classes, return_counts=True)
    exact = counts * examples / len(classes)
    shares = np.minimum(np.maximum(np.floor(exact), len(counts) <= examples), counts).astype(int)
    while shares.sum() != examples:
        step = 1 if shares.sum() < examples else -1
        free = (shares < counts) if step > 0 else (shares > (len(counts) <= examples))
        shares[np.argmax(np.where(free, step * (exact - shares), -np.inf))] += step
    order = np.random.default_rng(seed).permutation(len(classes))
    taken = [order[classes[order] == each][:share] for each, share in zip(kinds, shares, strict=True)]
    return order[np.isin(order, np.concatenate(taken))]


def fingerprint(data: Dataset) -> str:
    """A digest of ids, labels and texts, in order."""
    digest = hashlib.sha256()
    for batch in data.iter(batch_size=1000):
        for row in zip(batch["id"], batch["label"], batch["text"], strict=True):
            digest.update("\x1f".join(map(str, row)).encode())
            digest.update(b"\x1e")
    digest.update(b"\x1d")
    return digest.hexdigest()[:16]


def _from_package(name: str) -> DatasetDict:
    rows = packaged_text.load(name)
    return DatasetDict({split: _dataset(rows[split]) for split in SPLITS})


def _from_files(corpus: Corpus) -> DatasetDict:
    """A corpus of files, out of the hub or a folder."""
    folder = hub.snapshot("dataset", corpus.source, corpus.revision).folder
    if not folder.is_dir():
        raise UserError(
            f"Corpus '{corpus.source}' is a file: give the folder that has it, with files named train and test"
            " (train.csv, test.csv; json and parquet also)."
        )
    files = splits.find(folder, corpus.source)
    if files.beside:
        said = f"Corpus '{corpus.source}': splits are the files named train, validation and test; not read:"
        print(f"{said} {files.named_beside}.", file=sys.stderr)
    read = _as_written(files, corpus)
    train, test = read["train"], read["test"]
    if "validation" in read:
        return DatasetDict(train=train, validation=read["validation"], test=test)
    if corpus.validation_examples is None or corpus.validation_examples >= len(train):
        raise UserError(
            f"Corpus '{corpus.name}' has no validation split: set its validation_examples in the preset"
            f" to a number below its {len(train)} training examples."
        )
    return _carved(corpus, train, test)


def _carved(corpus: Corpus, train: Dataset, test: Dataset) -> DatasetDict:
    """With a part of the training examples as validation split, and classes of both in both."""
    counts, wanted = np.bincount(train["label"][:], minlength=len(LABELS)), corpus.validation_examples
    if counts.min() < 2 or wanted > len(train) - len(LABELS):
        raise UserError(
            f"Corpus '{corpus.name}' has no validation split, and validation_examples={wanted} cannot be carved from"
            f" {counts[0]} negative and {counts[1]} positive training examples so that each class is in both: give"
            " more examples, or a file of validation examples."
        )
    kept, carved = train_test_split(
        np.arange(len(train)), test_size=wanted, stratify=train["label"][:], random_state=_VALIDATION_SEED
    )
    return DatasetDict(train=train.select(np.sort(kept)), validation=train.select(np.sort(carved)), test=test)


def _as_written(files: splits.Files, corpus: Corpus) -> DatasetDict:
    """All splits, read from disk as they are used; read anew when the contents of the files are others."""
    key = f"{_FORMAT}\0{contents.digest(files.contents())}\0{corpus.text_column}\0{corpus.label_column}"
    folder = cache.directory() / "corpora" / hashlib.sha256(key.encode()).hexdigest()[:24]

    def make(partial: Path) -> None:
        names = labels.of_card(files, corpus.label_column)
        made = {split: _numbered(split, files.splits[split], names, corpus) for split in files.splits}
        for split, data in made.items():
            _check(corpus.name, split, data)
        DatasetDict(made).save_to_disk(str(partial))

    return DatasetDict.load_from_disk(str(cache.made_once(folder, make)))


def _numbered(split: str, files: Sequence[Path], names: list[str] | None, corpus: Corpus) -> Dataset:
    """A split out of its files, with labels by what their classes are called and ids by position."""
    where = f"The {split} split of corpus '{corpus.name}'"
    texts, numbers = [], []
    for file in files:
        table = cells.read(file, corpus.text_column, corpus.label_column)
        if names and table.names and names != table.names:
            raise UserError(
                f"{where} calls its classes {', '.join(table.names)} in {file.name} and {', '.join(names)} in its card:"
                " correct one of them."
            )
        texts += table.text.chunks
        numbers += labels.as_numbers(table.labels, table.names or names, where)
    ids = [f"{split}-{i}" for i in range(len(numbers))]
    columns = [pa.chunked_array(texts, pa.string()), pa.array(numbers, pa.int64()), pa.array(ids, pa.string())]
    features = Features({name: FEATURES[name] for name in ("text", "label", "id")})
    return Dataset(pa.table(columns, schema=features.arrow_schema))


def _dataset(rows: list[tuple[str, str, int]]) -> Dataset:
    ids, texts, numbers = zip(*rows, strict=True)
    return Dataset.from_dict({"id": ids, "text": texts, "label": numbers}, features=FEATURES)


def _check(name: str, split: str, data: Dataset) -> None:
    if len(data) == 0:
        raise UserError(f"Corpus '{name}' has no example in its {split} split; at least one of each class is needed.")
    found = sorted(set(data["label"][:]))  # ``unique`` would copy all texts of a part of a corpus
    if found != [0, 1]:
        raise UserError(
            f"The {split} split of corpus '{name}' has the labels {found} only; two classes, 0 and 1, are needed."
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
