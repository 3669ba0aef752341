"""The list of mutations is of these sources and these tests, and docs/testing.md has it."""

import ast

import pytest

import mutations
from mutations import ROOT


@pytest.mark.parametrize("mutation", mutations.listed(), ids=lambda mutation: mutation.name)
def test_a_mutation_applies_and_names_its_test_or_why_it_lives(mutation):
    text = mutation.applied()
    assert text is not None, f"its source text is not in {mutation.file}, or more than once"
    source = ROOT / "src" / "encoder_reduction" / mutation.file
    assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source.read_text(encoding="utf-8")))
    assert bool(mutation.test) != bool(mutation.lives)
    if mutation.test:
        file, _, name = mutation.test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_the_document_has_the_list():
    assert mutations.table() in mutations.DOCUMENT.read_text(encoding="utf-8"), (
        "docs/testing.md is not up to date: put what `python tests/mutations.py --table` prints there"
    )


def test_a_mutation_of_other_sources_is_not_taken_for_killed():
    gone = mutations.Mutation("gone", "errors.py", "no such text", "", "test_mutations.py")
    assert mutations.outcome(gone) == "SOURCE NOT FOUND in errors.py"
