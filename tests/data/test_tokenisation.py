import copy
import json
import multiprocessing
import os
import sys

import pytest
from datasets import Dataset
from networks import words
from transformers import AutoTokenizer

from encoder_reduction.data import cache, corpora, tokenisation
from encoder_reduction.data.tokenisation import check_words, tokenise
from encoder_reduction.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    return tmp_path / "tokenised"


@pytest.fixture
def texts(movies):
    return corpora.draw(movies["train"], 200, seed=0)


def test_token_ids_are_the_tokenizers(packaged, texts):
    _, tokenizer = packaged["roberta"]
    expected = tokenizer(list(texts["text"]), truncation=True, max_length=16)
    tokenised = tokenise(texts, tokenizer, 16)
    assert tokenised["input_ids"] == expected["input_ids"]
    assert tokenised["length"] == [len(ids) for ids in expected["input_ids"]]
    assert max(tokenised["length"]) == 16
    assert tokenised["labels"] == texts["label"]


def test_what_was_tokenised_is_read_again_whatever_the_tokenizer_did_between(packaged, texts, monkeypatch):
    _, tokenizer = packaged["bert"]
    first = tokenise(texts, tokenizer, 32)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=7)
    monkeypatch.setattr(tokenisation, "_store", lambda *_: pytest.fail("tokenised again"))
    assert tokenise(texts, tokenizer, 32)[:] == first[:]


@pytest.mark.parametrize("other", ["texts", "order", "length", "tokenizer"])
def test_anything_else_is_tokenised_anew(packaged, texts, own_cache, other):
    tokenise(texts, packaged["bert"][1], 32)
    changed = {"texts": texts.select(range(199)), "order": texts.select(range(199, -1, -1))}.get(other, texts)
    _, tokenizer = packaged["bert"]
    if other == "tokenizer":
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_tokens(["wonderful film"])
    tokenise(changed, tokenizer, 31 if other == "length" else 32)
    assert len([folder for folder in own_cache.iterdir() if folder.is_dir()]) == 2


def test_several_processes_give_what_one_does(packaged, texts, monkeypatch, tmp_path):
    _, tokenizer = packaged["bert"]
    alone = tokenise(texts, tokenizer, 32)[:]
    monkeypatch.setattr(tokenisation, "_EXAMPLES_A_PROCESS", 50)
    monkeypatch.setattr(tokenisation, "_cores", lambda: 2)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "another"))
    assert tokenise(texts, tokenizer, 32)[:] == alone


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_there_are_as_many_processors_as_this_process_may_use():
    """Of 128 on its node a job of Slurm may have 8."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert tokenisation._cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert tokenisation._cores() == len(allowed)


def test_what_was_broken_off_is_not_trusted(packaged, texts, own_cache, monkeypatch):
    _, tokenizer = packaged["bert"]
    with monkeypatch.context() as broken:
        broken.setattr(tokenisation.Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tokenise(texts, tokenizer, 32)
    assert len(tokenise(texts, tokenizer, 32)) == 200
    assert not list(own_cache.glob("*.partial"))


def one_of_many(connection, folder, tokenizer):
    """In a process of its own, once told to: how many texts it read, and whether it was the one that tokenised."""
    os.environ[cache.VARIABLE] = folder
    stored, store = [], tokenisation._store
    tokenisation._store = lambda *arguments: (stored.append(1), store(*arguments))
    texts = {"id": list("abcd"), "text": ["A film.", "Dull.", "Fine plot.", "No."], "label": [0, 1, 0, 1]}
    tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    connection.recv()
    connection.send((len(tokenise(Dataset.from_dict(texts), tokenizer, 32)), len(stored)))


@pytest.mark.slow
def test_eight_that_start_at_once_tokenise_once(packaged, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the fork server looks for what it preloads
    packaged["bert"][1].save_pretrained(tmp_path / "tokenizer")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_tokenisation"])
    pipes = [context.Pipe() for _ in range(8)]
    processes = [
        context.Process(target=one_of_many, args=(its, str(tmp_path), str(tmp_path / "tokenizer"))) for _, its in pipes
    ]
    for process in processes:
        process.start()
    for ours, _ in pipes:
        ours.send("go")
    found = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    assert [examples for examples, _ in found] == [4] * 8
    assert sum(stored for _, stored in found) == 1


def in_python(folder, word="good", **settings):
    """A tokenizer without a fast backend, which knows one word and single letters."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{token} 9\n" for token in [f"{word}</w>", "film</w>", *"abcdefg"]))
    (folder / "bpe.codes").write_text("g o 9\ngo o 8\ngoo d</w> 7\n")
    settings = {"tokenizer_class": "BertweetTokenizer", "model_max_length": 20} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    return AutoTokenizer.from_pretrained(folder)


def test_a_tokenizer_written_in_python_is_known_by_its_files_and_settings(texts, own_cache, tmp_path):
    tokenizer = in_python(tmp_path / "one")
    tokenised = tokenise(texts, tokenizer, 16)
    assert tokenised["input_ids"] == tokenizer(list(texts["text"]), truncation=True, max_length=16)["input_ids"]
    for same in (tokenizer, in_python(tmp_path / "two", model_max_length=9)):
        tokenise(texts, same, 16)
    assert len([folder for folder in own_cache.iterdir() if folder.is_dir()]) == 1
    tokenise(texts, in_python(tmp_path / "words", word="bad"), 16)
    tokenise(texts, in_python(tmp_path / "settings", normalization=True), 16)
    assert len([folder for folder in own_cache.iterdir() if folder.is_dir()]) == 3


@pytest.mark.parametrize(
    ("known", "unknown", "said"),
    [(19, 1, None), (18, 2, "10% of the tokens"), (2, 18, "90% of the tokens"), (1, 19, "refused"), (0, 0, None)],
)
def test_unknown_words_are_counted_before_training(known, unknown, said, caplog):
    """Special tokens count for nothing: one text has two of them beside its words."""
    texts = ["good " * known + "xyz " * unknown]
    tokenised = tokenise(Dataset.from_dict({"id": ["a"], "text": texts, "label": [0]}), words(), 64)
    if said == "refused":
        with pytest.raises(UserError, match=r"95% of the tokens of these texts are unknown .* \(19 of 20\)"):
            check_words(tokenised, words(), "these texts")
        return
    check_words(tokenised, words(), "these texts")
    assert (said or "") in caplog.text
    assert bool(said) == bool(caplog.messages)
