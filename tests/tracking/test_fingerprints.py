"""The digest of the code: what executes changes it, what is said about it does not."""

import pytest

from encoder_reduction.tracking.fingerprints import _of_package

CODE = """
def half(x):
    return x / 2


class Halves:
    def of(self, x):
        return half(x)
"""
SAID = '''
"""Halves, and what they are for."""


def half(x):
    """Half of it."""
    return (
        x
        / 2  # never 3
    )


class Halves:
    """Of many."""

    def of(self, x):
        """Half of one."""
        return half(x)
'''


@pytest.fixture
def digest(tmp_path):
    """The digest of a package of one file."""

    def of(content, name="training/halves.py"):
        file = tmp_path / "package" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return _of_package(tmp_path / "package")

    return of


def test_comments_docstrings_and_layout_do_not_change_it(digest):
    assert digest(CODE) == digest(SAID)


@pytest.mark.parametrize(
    ("what", "other"),
    [("x / 2", "x / 3"), ("x / 2", "x * 2"), ("class Halves", "class Halfs"), ("return half(x)", "half(x)")],
)
def test_what_executes_changes_it(digest, what, other):
    assert digest(CODE) != digest(CODE.replace(what, other))


def test_where_a_file_lies_changes_it_and_what_only_arranges_runs_does_not(digest):
    alone = digest(CODE)
    assert digest(CODE, "comparison/other.py") == digest(CODE, "tracking/other.py") == alone
    assert digest(CODE, "models/other.py") != alone
