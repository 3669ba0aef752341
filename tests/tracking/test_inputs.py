"""What counts as done and as whose: checkpoints and corpora by what they hold, not by what they are called."""

import os
import re

import pytest
from huggingface_hub import constants
from stores import finished

from encoder_reduction.comparison import selection
from encoder_reduction.data import contents, inputs
from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.plan.study import Study
from encoder_reduction.runs.sources import find_source
from encoder_reduction.tracking import fingerprints, matching, store

PRESET = presets.load("packaged")[0]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def reviews(tmp_path):
    """A corpus of one's own that is called as the preset's, of long ago."""
    folder = tmp_path / "mine" / "movie-snippets"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text("text,label\nFine.,1\nDull.,0\n")
    settled(folder)
    return folder


@pytest.fixture
def weights(tmp_path):
    """A checkpoint of one's own that is called as the preset's."""
    folder = tmp_path / "mine" / "minilm-bert"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def settled(folder):
    for file in folder.iterdir():
        os.utime(file, (0, 0))


def digests(**given):
    plan = PRESET.plan("baseline", "bert", overrides={key: str(value) for key, value in given.items()})
    return fingerprints.of_plan(plan), fingerprints.of_configuration(plan)


def differ(before, after):
    return all(old != new for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("file", ["train.csv", "test.csv", "README.md"])
def test_a_corpus_changed_in_place_is_neither_done_nor_a_repetition(reviews, file):
    before = digests(corpus=reviews)
    assert digests(corpus=reviews) == before
    (reviews / file).write_text("text,label\nFine.,0\nDull.,1\n")
    settled(reviews)
    assert differ(before, digests(corpus=reviews))


def test_what_a_run_does_not_read_changes_nothing(reviews, weights):
    before = digests(corpus=reviews, checkpoint=weights)
    (reviews / "notes.txt").write_text("Ask Ann.")
    (weights / "optimizer.pt").write_bytes(b"momentum")
    assert digests(corpus=reviews, checkpoint=weights) == before


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_checkpoint_retrained_in_place_is_neither_done_nor_a_repetition(weights, file):
    before = digests(checkpoint=weights)
    (weights / file).write_bytes(b"others!")
    assert differ(before, digests(checkpoint=weights))


def test_a_transfer_counts_the_corpus_of_what_it_starts_from(reviews):
    source = PRESET.source.model_copy(update={"source": str(reviews)})
    preset = PRESET.model_copy(update={"source": source})
    before = fingerprints.of_configuration(preset.plan("transfer", "bert", "heads"))
    (reviews / "train.csv").write_text("text,label\nFine.,0\nDull.,1\n")
    assert fingerprints.of_configuration(preset.plan("transfer", "bert", "heads")) != before


def test_what_is_not_here_counts_by_its_name_and_nobody_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    missing = digests(corpus=tmp_path / "gone", checkpoint="me/tiny")
    assert missing == digests(corpus=tmp_path / "gone", checkpoint="me/tiny")
    assert differ(missing, digests(corpus=tmp_path / "other", checkpoint="me/tiny"))


def test_a_hub_source_counts_by_its_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "datasets--me--reviews"
    seen = []
    for commit in ("a" * 40, "b" * 40):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        corpus = presets.Corpus(name="reviews", source="me/reviews")
        assert inputs.revision(corpus) == commit
        seen.append(digests(corpus="me/reviews"))
    assert differ(*seen)
    pinned = presets.Corpus(name="reviews", source="me/elsewhere", revision="c" * 40)
    assert inputs.revision(pinned) == "c" * 40


def test_the_packaged_sources_are_the_same_everywhere(monkeypatch, tmp_path):
    before = digests()
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path / "another"))
    assert digests() == before
    assert inputs.revisions(PRESET.plan("transfer", "bert", "heads")) == []


def test_a_file_is_read_once_and_again_when_it_may_have_changed(reviews, monkeypatch):
    file = reviews / "train.csv"
    monkeypatch.setattr(contents, "_SETTLED_NS", -1)
    first, read = contents.digest({"train": file}), []
    hashed = contents.hashlib.file_digest
    monkeypatch.setattr(contents.hashlib, "file_digest", lambda *words: read.append(1) or hashed(*words))
    assert contents.digest({"train": file}) == first
    assert not read
    before, content = file.stat(), file.read_text()
    file.write_text(content.replace("1", "0"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert contents.digest({"train": file}) != first
    assert read == [1]


def test_what_has_just_changed_is_not_remembered(reviews, tmp_path):
    contents.digest({"train": reviews / "train.csv"})
    assert not list((tmp_path / "cache").rglob("contents/*"))


def test_a_cache_that_cannot_be_written_only_costs_time(reviews, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    expected = digests(corpus=reviews)
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path / "file" / "cache"))
    assert digests(corpus=reviews) == expected


def of(what, source):
    return {f"{what}_source": source.source, f"{what}_revision": inputs.revision(source)}


def tags(stage="baseline", **given):
    """What a run says of its inputs: the preset's, or those that are given."""
    plan = PRESET.plan(stage, "bert", overrides={key: str(value) for key, value in given.items()})
    return of("checkpoint", plan.checkpoint) | of("corpus", plan.corpus)


@pytest.mark.parametrize("what", ["checkpoint", "corpus"])
def test_inputs_of_the_presets_name_do_not_enter_its_tables(experiment_id, reviews, weights, what):
    own = finished(tags=tags())
    before_there_was_such_a_tag = finished(seed=43)
    given = {"checkpoint": weights, "corpus": reviews}[what]
    finished(tags=tags(**{what: given}) | {"plan_fingerprint": "another"}, validation_accuracy=0.99)
    counted = selection.latest_runs(store.finished_runs(experiment_id), Study(PRESET))
    assert set(counted.planned["run_id"]) == {own, before_there_was_such_a_tag}
    whose = {"checkpoint": "", "corpus": ""} | {what: rf" \({given}, local-\w+\)"}
    words = f"1 runs of minilm-bert{whose['checkpoint']} on movie-snippets{whose['corpus']}, which are not the preset's"
    assert re.fullmatch(words, counted.left_out[0])


@pytest.mark.parametrize("what", ["checkpoint", "corpus"])
def test_inputs_of_the_presets_name_are_no_source_of_a_transfer(experiment_id, reviews, weights, what):
    given = {"checkpoint": weights, "corpus": reviews}[what]
    finished(dim="heads", tags=tags(**{what: given}), validation_accuracy=0.99)
    plan = PRESET.plan("transfer", "bert", "heads")
    with pytest.raises(UserError, match="No finished reduce run"):
        find_source(experiment_id, plan)
    planned = finished(dim="heads", tags=tags(), validation_accuracy=0.7)
    assert find_source(experiment_id, plan) == planned


def test_runs_on_data_as_it_was_do_not_count_any_more(experiment_id, reviews):
    source = PRESET.source.model_copy(update={"source": str(reviews)})
    preset = PRESET.model_copy(update={"source": source})
    finished(tags=of("corpus", source) | of("checkpoint", PRESET.models["bert"]))
    assert matching.of_input(store.finished_runs(experiment_id), source).tolist() == [True]
    (reviews / "train.csv").write_text("text,label\nFine.,0\nDull.,1\n")
    new = finished(tags=of("corpus", source) | of("checkpoint", PRESET.models["bert"]) | {"plan_fingerprint": "new"})
    counted = selection.latest_runs(store.finished_runs(experiment_id), Study(preset))
    assert counted.planned["run_id"].tolist() == [new]
    assert f"movie-snippets ({reviews}, local-" in counted.left_out[0]


def test_the_same_files_elsewhere_are_the_same_corpus(experiment_id, reviews, tmp_path):
    moved = tmp_path / "elsewhere"
    finished(tags=tags(corpus=reviews))
    reviews.rename(moved)
    wanted = presets.Corpus(name="anything", source=str(moved))
    assert matching.of_input(store.finished_runs(experiment_id), wanted).tolist() == [True]


def test_runs_of_other_seeds_are_repetitions_however_many_runs_they_build_on():
    """A transfer builds on a reduction, which learns from a baseline."""
    preset = presets.load("packaged")[0]
    preset = preset.model_copy(update={"distillation": preset.distillation.model_copy(update={"distill": "hidden"})})
    one, other = (
        fingerprints.of_configuration(preset.plan("transfer", "bert", "heads", {"seed": seed})) for seed in (42, 43)
    )
    assert one == other
