"""Snippets joined to texts of IMDb's lengths: real ones, and planted ones whose every word says where it is from."""

from collections import Counter
from statistics import mean, quantiles

import pytest

from encoder_reduction.data import corpora, packaged_text
from encoder_reduction.data.long_texts import joined
from encoder_reduction.plan import presets
from encoder_reduction.plan.sections import Corpus

FINGERPRINTS = ["35d83b24031d01ee", "88836da846a73c5d", "3f9b4b9f42c3e328"]


@pytest.fixture(scope="module")
def long():
    return packaged_text.load("movies-long")


def planted(count, words=19):
    """Snippets of either class, each word of which is the snippet's id."""
    return [(str(index), " ".join([str(index)] * words), index % 2) for index in range(count)]


def test_a_snippet_is_whole_in_one_text_of_its_class():
    snippets = planted(2000)
    texts = joined(snippets)
    found = Counter(word for _, text, _ in texts for word in text.split())
    assert set(found.values()) == {19}
    assert len(found) > 0.98 * len(snippets)
    for identifier, text, label in texts:
        words = text.split()
        assert {int(word) % 2 for word in words} == {label}
        first, _, more = identifier.partition("+")
        assert (words[0], len(words)) == (first, 19 * (int(more) + 1))


def test_no_snippet_is_in_two_splits_and_all_are_of_the_splits_own(long):
    """The first snippet of a text is known by its id; the rest are told by the words that a split's snippets have."""
    snippets = packaged_text.load("movies")
    for split in corpora.SPLITS:
        by_id = {identifier: (text, label) for identifier, text, label in snippets[split]}
        for label in (0, 1):
            had = Counter(word for text, own in by_id.values() if own == label for word in text.split())
            used = Counter(word for _, text, own in long[split] if own == label for word in text.split())
            assert used <= had
            assert used.total() > 0.97 * had.total()
        for identifier, text, label in long[split]:
            first, own = by_id[identifier.partition("+")[0]]
            assert text.startswith(first)
            assert own == label


def test_the_lengths_are_those_of_imdbs_reviews(long):
    """Published: quartiles 126, 173 and 280 words, mean 231.2, 57.8% of the reviews below 200, some above 1,000."""
    assert [len(long[split]) for split in corpora.SPLITS] == [605, 85, 168]
    for split in corpora.SPLITS:
        lengths = [len(text.split()) for _, text, _ in long[split]]
        assert quantiles(lengths, n=4) == pytest.approx([126, 173, 280], rel=0.04)
        assert mean(lengths) == pytest.approx(231.2, rel=0.02)
        assert sum(length < 200 for length in lengths) / len(lengths) == pytest.approx(0.578, abs=0.02)
    assert max(len(text.split()) for _, text, _ in long["train"]) > 1000


def test_classes_and_lengths_are_mixed(long):
    labels = [label for _, _, label in long["train"]]
    lengths = [len(text.split()) for _, text, _ in long["train"]]
    for part in (slice(0, 200), slice(200, 400), slice(400, 600)):
        assert mean(labels[part]) == pytest.approx(0.5, abs=0.1)
        assert mean(lengths[part]) == pytest.approx(231, rel=0.15)


def test_the_texts_never_change():
    data = corpora.load(Corpus(name="x", source="packaged:movies-long"))
    assert [corpora.fingerprint(data[split]) for split in corpora.SPLITS] == FINGERPRINTS


def test_the_order_of_the_snippets_does_not_matter():
    assert joined(planted(500)) == joined(planted(500)[::-1])


def test_a_run_that_asks_for_them_calls_them_by_their_name():
    plan = presets.load("packaged")[0].plan("baseline", "bert", overrides={"corpus": "packaged:movies-long"})
    assert (plan.corpus.name, plan.corpus.source) == ("movies-long", "packaged:movies-long")
