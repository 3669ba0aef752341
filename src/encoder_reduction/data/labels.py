"""Labels as 0 (negative) and 1 (positive) by what they mean; numbers by the names of their classes, where there are."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import ClassLabel, DatasetInfo, Features
from datasets.config import DATASET_INFO_FILENAME
from datasets.info import DatasetInfosDict

from ..errors import UserError, one_line
from .splits import Files, some

# Labels that are words, whatever their case.
WORDS = {"negative": 0, "neg": 0, "false": 0, "0": 0, "positive": 1, "pos": 1, "true": 1, "1": 1}
# Classes that are called so are ordered, as Yelp's, where 2 is positive.
_ORDERED = {"1": 0, "2": 1}
_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")


def as_numbers(labels: Sequence[object], names: Sequence[str] | None, where: str) -> list[int]:
    """What each label means.

    Args:
        labels: words, numbers or truth values, of one type.
        names: what the classes 0, 1, ... are called, where the corpus says so.
        where: what has these labels, as the beginning of a sentence.

    Raises:
        UserError: they are not of two known classes.
    """
    kinds = {_kind(label) for label in labels}
    if len(kinds) > 1 or kinds & {"nothing", "something else"}:
        raise UserError(
            f"{where} has labels that are {' and '.join(sorted(kinds))} ({_shown(labels)}): give every example"
            " a label, all of one type."
        )
    meanings = _meanings(names, where)
    found = {label: meanings.get(_spelled(label)) for label in set(labels)}
    if None not in found.values():
        return [found[label] for label in labels]
    if names is not None:
        raise UserError(f"{where} has the labels {_shown(labels)}; its classes are called {', '.join(names)}.")
    if kinds == {"words"}:
        raise UserError(f"{where} has the labels {_shown(labels)}; allowed are 0 and 1, or: {', '.join(WORDS)}.")
    raise UserError(f"{where} has the labels {_shown(labels)}; two classes are needed: 0 and 1, or their names.")


def sides(names: Sequence[str], known: Mapping[str, int] = WORDS) -> list[int] | None:
    """0 or 1 for each of two classes, by what they are called; nothing where they are not one of each side."""
    found = [known.get(name.strip().lower()) for name in names]
    return found if sorted(found, key=str) == [0, 1] else None


def is_label(text: str) -> bool:
    """Whether this may be a label in a file of text."""
    return text.lower() in WORDS or bool(_NUMBER.fullmatch(text))


def of_card(files: Files, column: str) -> list[str] | None:
    """The names of the classes that the card of a corpus gives, if it does.

    Raises:
        UserError: the card cannot be read, or has several data sets whose classes are called differently.
    """
    try:
        infos = _described(files.root)
    except Exception as error:  # Whatever the library's parsing comes upon.
        raise UserError(
            f"The card of the corpus in {files.root} could not be read ({one_line(error)}): correct what its README.md"
            " or dataset_info.json says of the columns."
        ) from error
    chosen = [infos[files.folder.name]] if files.folder.name in infos else infos.values()
    given = [names for info in chosen if (names := of_features(info.features, column))]
    if any(names != given[0] for names in given):
        raise UserError(f"The card of the corpus in {files.root} names classes in several ways ({some(given)}).")
    return given[0] if given else None


def _described(folder: Path) -> dict[str, DatasetInfo]:
    """What the card says, by data set of the folder."""
    if infos := DatasetInfosDict.from_directory(str(folder)):
        return dict(infos)
    if (folder / DATASET_INFO_FILENAME).is_file():
        return {"default": DatasetInfo.from_directory(str(folder))}
    return {}


def of_features(features: Features | None, column: str) -> list[str] | None:
    """The names of the classes of a column, if it has any."""
    feature = (features or {}).get(column)
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def _kind(label: object) -> str:
    if label is None or label == "":
        return "nothing"
    if isinstance(label, bool):
        return "truth values"
    if isinstance(label, str):
        return "numbers" if _NUMBER.fullmatch(label.strip()) else "words"
    return "numbers" if isinstance(label, int | float) else "something else"


def _spelled(label: object) -> str:
    """``1`` for 1, 1.0 and "1.0"; a word in small letters."""
    text = str(label).strip().lower()
    return str(int(float(text))) if _NUMBER.fullmatch(text) else text


def _meanings(names: Sequence[str] | None, where: str) -> dict[str, int]:
    """0 or 1 by what a label may be."""
    if names is None:
        return WORDS
    ordered = {name.strip() for name in names} == set(_ORDERED)
    classes = sides(names, _ORDERED if ordered else WORDS)
    if classes is None:
        raise UserError(
            f"{where} calls its classes {some(names)}; two are needed, one of each side: {', '.join(WORDS)}; or 1"
            " and 2."
        )
    words = {word: meaning for word, meaning in WORDS.items() if not _NUMBER.fullmatch(word)}
    return words | {str(number): meaning for number, meaning in enumerate(classes)}


def _shown(labels: Sequence[object]) -> str:
    return some(sorted({"(empty)" if label in (None, "") else str(label) for label in labels}))
