"""Which files of a folder are a corpus: exactly those that are named train, validation and test."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError

SPLITS = ("train", "validation", "test")
FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")

# As the hub stores it, a split may lie in several files: train-00000-of-00002.parquet.
_NAME = re.compile(rf"({'|'.join(SPLITS)})(?:-(\d+)-of-(\d+))?\.({'|'.join(FORMATS)})", re.IGNORECASE)
# What may say how classes are called.
_CARDS = ("README.md", "dataset_infos.json", "dataset_info.json")
_DEPTH = 3
_SHOWN = 5


@dataclass(frozen=True)
class Files:
    """The files of a corpus.

    Attributes:
        root: the corpus's folder.
        folder: where its splits are: the root, or the one folder below it that has them.
        splits: the files of each split, in order.
        beside: other files, which are not read; relative to the root.
    """

    root: Path
    folder: Path
    splits: dict[str, list[Path]]
    beside: list[str]

    def contents(self) -> dict[str, Path]:
        """All files that the corpus is read from, by name."""
        cards = [self.root / name for name in _CARDS if (self.root / name).is_file()]
        examples = [file for files in self.splits.values() for file in files]
        return {_name(path, self.root): path for path in [*cards, *examples]}

    @property
    def named_beside(self) -> str:
        """The first of the other files."""
        return some(self.beside)


def find(root: Path, source: str) -> Files:
    """The files of a corpus; capitals in their names do not matter.

    Raises:
        UserError: the folder has none, several folders below it have some, a split is there twice or in part.
    """
    found = [path for path in _walk(root) if path.is_file()]
    named = {path: match for path in found if (match := _NAME.fullmatch(path.name))}
    folder = _folder(named, root, source)
    splits: dict[str, list[Path]] = {}
    for path in sorted(path for path in named if path.parent == folder):
        splits.setdefault(named[path][1].lower(), []).append(path)
    for split, files in splits.items():
        _check_whole(split, files, source)
    taken = {path for files in splits.values() for path in files}
    beside = [_name(path, root) for path in found if path not in taken and not _says_nothing_of_examples(path)]
    missing = [split for split in ("train", "test") if split not in splits]
    if missing:
        raise UserError(
            f"Corpus '{source}' has no {' and no '.join(missing)} split; it has {some([*splits, *beside])}: splits are"
            f" the files named train, validation and test, with one of the endings {', '.join(FORMATS)}."
        )
    return Files(root, folder, {split: splits[split] for split in SPLITS if split in splits}, beside)


def some(items: Iterable[object]) -> str:
    """The first few of many, in words."""
    shown = [str(item) for item in items]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) or "nothing") + more


def _walk(root: Path) -> Iterator[Path]:
    """Files of the folder and of those below it, hidden ones left out."""
    for depth in range(_DEPTH):
        yield from sorted(
            path for path in root.glob("/".join(["*"] * (depth + 1)))
            if not any(part.startswith(".") for part in path.relative_to(root).parts)
        )  # fmt: skip


def _folder(named: dict[Path, re.Match[str]], root: Path, source: str) -> Path:
    """The folder itself if it has a split, else the only one below it that has one for training."""
    if any(path.parent == root for path in named):
        return root
    training = {path.parent for path, match in named.items() if match[1].lower() == "train"}
    if len(training) > 1:
        several = some(sorted(_name(folder, root) for folder in training))
        raise UserError(
            f"Corpus '{source}' has splits in several folders ({several}): give a folder that has those of one corpus."
        )
    return next(iter(training), root)


def _check_whole(split: str, files: list[Path], source: str) -> None:
    """One file, or all pieces of one format."""
    names, there = [_NAME.fullmatch(file.name) for file in files], some(file.name for file in files)
    pieces = [(int(name[2]), int(name[3])) for name in names if name[2]]
    if len(files) == 1 and not pieces:
        return
    if len(pieces) != len(files) or len({name[4].lower() for name in names}) > 1 or len(set(pieces)) < len(pieces):
        raise UserError(f"Corpus '{source}' has its {split} split more than once ({there}): leave one.")
    if pieces != [(number, len(pieces)) for number in range(len(pieces))]:
        raise UserError(f"Corpus '{source}' has its {split} split in part ({there}): fetch it again.")


def _says_nothing_of_examples(path: Path) -> bool:
    return path.name in _CARDS or path.stem.upper() in ("LICENSE", "LICENCE")


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
