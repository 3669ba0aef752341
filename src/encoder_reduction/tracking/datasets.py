"""The data of a run as MLflow shows it: a data set a split, with its digest, its source and its classes."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.huggingface_dataset_source import HuggingFaceDatasetSource
from mlflow.entities import Dataset as Entity
from mlflow.entities import DatasetInput, InputTag
from mlflow.types import ColSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from ..data import corpora, hub, inputs, packaged_text
from ..plan.sections import Corpus

TESTING = "testing"
_CONTEXTS = {"train": "training", "validation": "validation", "test": TESTING}
_SCHEMA = Schema([ColSpec("string", "text"), ColSpec("long", "label")])


@dataclass(frozen=True)
class DataSet:
    """One split as a run used it.

    Attributes:
        name: corpus and split, as ``imdb-test``.
        digest: of its ids, labels and texts in order.
        context: what MLflow calls the use of the split.
        source_type: ``hugging_face``, ``local`` or ``code``.
        source: where it is from, as JSON.
        profile: number of examples, and how many of each class, as JSON.
    """

    name: str
    digest: str
    context: str
    source_type: str
    source: str
    profile: str

    def as_input(self) -> DatasetInput:
        """As MLflow's client takes it."""
        schema = json.dumps({"mlflow_colspec": _SCHEMA.to_dict()})
        dataset = Entity(self.name, self.digest, self.source_type, self.source, schema, self.profile)
        return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, self.context)])


def of_splits(corpus: Corpus, data: DatasetDict) -> dict[str, DataSet]:
    """The data set of each split of a corpus, as a run has drawn them."""
    source_type, source = _source(corpus)
    return {
        split: DataSet(
            name=f"{corpus.name}-{split}",
            digest=corpora.fingerprint(data[split]),
            context=context,
            source_type=source_type,
            source=json.dumps(source),
            profile=_profile(data[split]),
        )
        for split, context in _CONTEXTS.items()
    }


def _source(corpus: Corpus) -> tuple[str, dict[str, Any]]:
    """What MLflow calls the kind of source, and what it knows of one."""
    revision = inputs.revision(corpus)
    if corpus.source.startswith("packaged:"):
        return "code", CodeDatasetSource({"corpus": corpus.source, "package": packaged_text.REQUIREMENT}).to_dict()
    if revision and revision.startswith(hub.LOCAL):
        return "local", {"uri": corpus.source}
    return "hugging_face", HuggingFaceDatasetSource(corpus.source, revision=revision).to_dict()


def _profile(split: Dataset) -> str:
    counts = np.bincount(split["label"][:], minlength=len(corpora.LABELS)).tolist()
    return json.dumps({"num_rows": len(split), **dict(zip(corpora.LABELS, counts, strict=True))})
