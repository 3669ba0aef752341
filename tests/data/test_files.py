"""Corpora as people write them: what is read is what was written, or one sentence says why it is not."""

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoder_reduction.data import corpora
from encoder_reduction.data.cache import VARIABLE as CACHE_VARIABLE
from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets

Rows = list[tuple[str, object]]

FILMS = [(f"Film {index} was {'fine' if index % 2 else 'dull'}.", index % 2) for index in range(8)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


def corpus(folder, **more):
    return presets.Corpus(name="mine", source=str(folder), validation_examples=2, **more)


def load(folder, **more):
    data = corpora.load(corpus(folder, **more))
    return {split: list(zip(data[split]["text"], data[split]["label"], strict=True)) for split in data}


def read_or_refused(folder):
    try:
        return load(folder)
    except UserError as error:
        return str(error)


def refused(folder, **more):
    with pytest.raises(UserError) as error:
        load(folder, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_csv(file: Path, rows: Rows, separator: str = ",") -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=separator).writerows([("text", "label"), *rows])


def write_json(file: Path, rows: Rows) -> None:
    file.write_text(json.dumps([{"text": text, "label": label} for text, label in rows]))


def write_jsonl(file: Path, rows: Rows) -> None:
    file.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows))


def write_parquet(file: Path, rows: Rows, names: list[str] | None = None) -> None:
    texts, labels = zip(*rows, strict=True)
    kind = ClassLabel(names=names) if names else Value("string" if isinstance(labels[0], str) else "int64")
    features = Features({"text": Value("string"), "label": kind})
    Dataset.from_dict({"text": texts, "label": labels}, features=features).to_parquet(file)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "csv": write_csv,
    "tsv": lambda file, rows: write_csv(file, rows, "\t"),
    "json": write_json,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def write(folder, rows=FILMS, form="csv", splits=("train", "validation", "test")):
    for split in splits:
        WRITERS[form](folder / f"{split}.{form}", rows)


def write_card(folder, names, **more):
    label = {"name": "label", "dtype": {"class_label": {"names": {str(i): name for i, name in enumerate(names)}}}}
    info = {"features": [{"name": "text", "dtype": "string"}, label]} | more
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'dataset_info': info})}---\n# Mine\n")


# What the classes are called, by number, and what is then 1.
NAMES = {
    "plain": (None, {0: 0, 1: 1}),
    "known": (["neg", "pos"], {0: 0, 1: 1}),
    "reversed": (["Positive", "Negative"], {0: 1, 1: 0}),
    "stars": (["1", "2"], {0: 0, 1: 1}),
    "stars reversed": (["2", "1"], {0: 1, 1: 0}),
}
SPELLED = {
    "csv": (str, lambda label: f"{label}.0"),
    "tsv": (str,),
    "json": (int, float, bool),
    "jsonl": (int, float, bool),
    "parquet": (int,),
}
WORDS = ["NA", "null", "None", "nan", "#N/A", '"', '""', "'", ",", "\t", "\n", "\r\n", "\r", "\\", "0", "1", "ä", "好"]
PIECES = st.sampled_from(WORDS)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=4)), min_size=1, max_size=6).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_labels_and_texts_read_are_those_written_or_are_refused(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    name = data.draw(st.sampled_from(sorted(NAMES)))
    names, meaning = NAMES[name]
    forms = {split: data.draw(st.sampled_from(sorted(WRITERS))) for split in corpora.SPLITS}
    words = data.draw(st.sampled_from([None, ("negative", "positive"), ("Neg", "POS"), ("false", "true")]))
    written, expected = {}, {}
    for split, form in forms.items():
        classes = [0, 1, *data.draw(st.lists(st.integers(0, 1), max_size=4))]
        spell = data.draw(st.sampled_from(SPELLED[form]))
        labels = [words[each] if words else spell(each) for each in classes]
        texts = data.draw(st.lists(TEXTS, min_size=len(classes), max_size=len(classes)))
        written[split] = list(zip(texts, labels, strict=True))
        by_themselves = words or spell is bool
        expected[split] = list(zip(texts, classes if by_themselves else [meaning[c] for c in classes], strict=True))
        file = folder / f"{data.draw(st.sampled_from([split, split.capitalize(), split.upper()]))}.{form}"
        WRITERS[form](file, written[split])
    if names:
        write_card(folder, names)
    # The only ones of which a csv may say that they are not plain.
    cells = [text for split, rows in written.items() if forms[split] in ("csv", "tsv") for text, _ in rows]
    doubtful = any(not text or len(text.splitlines()) > 1 for text in cells)
    found = read_or_refused(folder)
    assert found == expected or (doubtful and re.search("no text|like rows", str(found)))


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_what_other_readers_take_for_nothing_is_a_text(tmp_path, form):
    rows = [(word, index % 2) for index, word in enumerate(["NA", "N/A", "null", "None", "nan", "1.0", "TRUE", "-"])]
    write(tmp_path, rows, form)
    assert load(tmp_path)["train"] == rows


def test_class_names_of_a_parquet_file_say_which_number_is_positive(tmp_path):
    for split in corpora.SPLITS:
        write_parquet(tmp_path / f"{split}.parquet", FILMS, ["pos", "neg"])
    assert load(tmp_path)["test"] == [(text, 1 - label) for text, label in FILMS]


def test_each_file_goes_by_its_own_class_names(tmp_path):
    for split, names in (("train", ["pos", "neg"]), ("validation", ["neg", "pos"]), ("test", ["1", "2"])):
        write_parquet(tmp_path / f"{split}.parquet", FILMS, names)
    read = load(tmp_path)
    assert read["train"] == [(text, 1 - label) for text, label in FILMS]
    assert read["validation"] == read["test"] == FILMS


@pytest.mark.parametrize("names", [["good", "bad"], ["positive", "neutral", "negative"], ["pos", "positive"], ["pos"]])
@pytest.mark.parametrize("where", ["card", "parquet", "dataset_info.json"])
def test_class_names_that_are_not_two_known_ones_are_refused(tmp_path, names, where):
    if where == "parquet":
        for split in corpora.SPLITS:
            write_parquet(tmp_path / f"{split}.parquet", [("a", 0), ("b", 0)], names)
    else:
        write(tmp_path)
    if where == "card":
        write_card(tmp_path, names)
    if where == "dataset_info.json":
        label = {"names": names, "_type": "ClassLabel"}
        (tmp_path / where).write_text(json.dumps({"features": {"label": label}}))
    assert f"calls its classes {', '.join(names)}; two are needed" in refused(tmp_path)


def test_a_card_and_a_file_that_call_classes_differently_are_refused(tmp_path):
    for split in corpora.SPLITS:
        write_parquet(tmp_path / f"{split}.parquet", FILMS, ["pos", "neg"])
    write_card(tmp_path, ["neg", "pos"])
    assert "calls its classes pos, neg in train.parquet and neg, pos in its card" in refused(tmp_path)


@pytest.mark.parametrize("card", ["---\na: [\n---\n", "---\n- a\n---\n", "---\ndataset_info: {features: 3}\n---\n"])
def test_a_card_that_cannot_be_read_is_one_sentence(tmp_path, card):
    write(tmp_path)
    (tmp_path / "README.md").write_text(card)
    assert "The card of the corpus" in refused(tmp_path)


def test_other_files_are_named_and_not_read(tmp_path, capsys):
    write(tmp_path)
    (tmp_path / "old").mkdir()
    for name in ("train_old.csv", "train-test.csv", "old/train.csv", "train.csv.bak", "dev.csv"):
        write_csv(tmp_path / name, [("Not this.", 1)] * 3)
    assert load(tmp_path)["train"] == FILMS
    said = capsys.readouterr().err
    assert "not read: dev.csv, train-test.csv, train.csv.bak, train_old.csv, old/train.csv." in said
    assert said.count("\n") == 1


def test_only_splits_and_a_card_say_nothing(tmp_path, capsys):
    write(tmp_path)
    write_card(tmp_path, ["neg", "pos"])
    load(tmp_path)
    assert capsys.readouterr().err == ""


def test_splits_lie_in_one_folder_below_and_in_several_files_as_the_hub_has_them(tmp_path):
    (tmp_path / "data").mkdir()
    for split in corpora.SPLITS:
        for piece in range(2):
            write_parquet(tmp_path / f"data/{split}-0000{piece}-of-00002.parquet", FILMS[4 * piece :][:4])
    assert load(tmp_path)["train"] == FILMS
    (tmp_path / "data/train-00001-of-00002.parquet").unlink()
    assert "has its train split in part (train-00000-of-00002.parquet)" in refused(tmp_path)


@pytest.mark.parametrize("second", ["train.parquet", "TRAIN.csv", "train.tsv"])
def test_a_split_that_is_there_twice_is_refused(tmp_path, second):
    write(tmp_path)
    WRITERS[second.rpartition(".")[2]](tmp_path / second, FILMS)
    message = refused(tmp_path)
    assert "has its train split more than once" in message
    assert second in message


def test_several_corpora_below_a_folder_are_refused(tmp_path):
    for name in ("films", "books"):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    assert "has splits in several folders (books, films)" in refused(tmp_path)


@pytest.mark.parametrize("name", ["reviews [2024]", "a*b", "what?", "{x}", "Ünïcode", "with space", "100%"])
def test_a_folder_may_have_any_name(tmp_path, name):
    (tmp_path / name).mkdir()
    write(tmp_path / name)
    assert load(tmp_path / name)["test"] == FILMS


def test_a_missing_split_says_what_there_is(tmp_path):
    write(tmp_path, splits=("train",))
    write_csv(tmp_path / "tests.csv", FILMS)
    assert "has no test split; it has train, tests.csv: splits are the files named train" in refused(tmp_path)


UNBALANCED = {
    "to the end": ('"A film,1\nB,0\nC,1\n', "The row that begins at line 10"),
    "to a quote amid a text": ('"A film,1\nB,0\nC "d",1\n', "The row that begins at line 10"),
    "to a quote that ends a text": ('"A film,1\nB,0\nC 5",1\n', "Line 10"),
    "over one row": ('"A film,1\nC 5",1\n', "Line 10"),
    "a text with its separator": ("A film, fine,1\n", "Line 10 of"),
    "too few": ("A film\n", "has 1 cells where its header has 2"),
}


@pytest.mark.parametrize("kind", sorted(UNBALANCED))
def test_an_unbalanced_quote_swallows_no_row_and_is_named_by_its_line(tmp_path, kind):
    write(tmp_path)
    rows, words = UNBALANCED[kind]
    with (tmp_path / "train.csv").open("a") as stream:
        stream.write(rows)
    assert words in refused(tmp_path)


def test_a_row_that_the_label_begins_is_not_swallowed_either(tmp_path):
    write(tmp_path)
    (tmp_path / "train.csv").write_text('label,text\n0,Dull.\n1,"A film\n0,B\n1,C 5"\n')
    assert "Line 3" in refused(tmp_path)


def test_texts_of_several_lines_are_read_whole(tmp_path):
    rows = [("First.\n\nSecond, a line with 1, 2 commas.\n", 1), ('He said "no".\r\nTwice.', 0), ("x", 1), ("y", 0)]
    write(tmp_path, rows)
    assert load(tmp_path)["train"] == rows


LABELS = {
    "mixed": ([0, "pos", 1, 0], "labels that are numbers and words (0, 1, pos)"),
    "missing": ([0, 1, None, 0], "labels that are nothing and numbers"),
    "lists": ([[0], [1], [0], [1]], "labels that are something else"),
    "fractions": ([0.5, 1, 0, 1], "has the labels 0, 0.5, 1"),
    "not a number": ([float("nan"), 1, 0, 1], "has the labels"),
}


@pytest.mark.parametrize("kind", sorted(LABELS))
def test_labels_of_other_kinds_are_one_sentence(tmp_path, kind):
    labels, words = LABELS[kind]
    write(tmp_path, list(zip("abcd", labels, strict=True)), "jsonl")
    assert words in refused(tmp_path)


def test_mixed_labels_of_a_csv_are_one_sentence(tmp_path):
    write(tmp_path, [("a", "0"), ("b", "positive"), ("c", "1")])
    assert "labels that are numbers and words" in refused(tmp_path)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_texts_that_are_lists_are_one_sentence(tmp_path, form):
    for split in corpora.SPLITS:
        frame = pd.DataFrame({"text": [["a", "film"], ["dull"]], "label": [1, 0]})
        file = tmp_path / f"{split}.{form}"
        frame.to_parquet(file) if form == "parquet" else frame.to_json(file, orient="records", lines=True)
    assert "where text is needed" in refused(tmp_path)


def test_a_label_column_may_be_called_text(tmp_path):
    for split in corpora.SPLITS:
        pd.DataFrame(FILMS, columns=["review", "text"]).to_csv(tmp_path / f"{split}.csv", index=False)
    assert load(tmp_path, text_column="review", label_column="text")["train"] == FILMS
    assert "needs one column of texts and another of labels" in refused(tmp_path, label_column="text")


def test_categories_of_pandas_are_texts_and_labels(tmp_path):
    for split in corpora.SPLITS:
        frame = pd.DataFrame(FILMS, columns=["text", "label"])
        frame["label"] = frame["label"].map({0: "neg", 1: "pos"}).astype("category")
        frame.to_parquet(tmp_path / f"{split}.parquet")
    assert load(tmp_path)["train"] == FILMS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.parquet", b"version https://git-lfs.github.com/spec/v1\n"),
        ("train.csv", "text,label\nSchön,1\n".encode("latin-1")),
        ("train.csv", "text,label\nDull,1\n".encode("utf-16")),
        ("train.json", b'[{"text": "cut'),
        ("train.jsonl", b'{"text": "fine", "label": 1}\n{"text": "cut'),
        ("train.jsonl", b'{"text": "\\ud800", "label": 1}\n'),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, name, content):
    write(tmp_path, splits=("validation", "test"))
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path)
    assert "could not be read" in message
    assert name in message


def test_data_corrected_in_place_is_read_anew_whatever_its_date_says(tmp_path):
    write(tmp_path)
    file = tmp_path / "train.csv"
    before = file.stat()
    assert load(tmp_path)["train"] == FILMS
    turned = [(text, 1 - label) for text, label in FILMS]
    write_csv(file, turned)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load(tmp_path)["train"] == turned


def test_a_source_that_is_not_there_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for source in ("my/own/reviews", "reviews"):
        assert f"there is no folder {tmp_path / source}" in refused(source)
