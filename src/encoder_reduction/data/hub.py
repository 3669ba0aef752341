"""What comes from the Hugging Face hub: fetched once, checked, and found again without a network."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import HfApi, is_offline_mode, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import UserError

Kind = Literal["model", "dataset"]

# What stands for the revision of a folder that is not the hub's.
LOCAL = "local"

_CALLED = {"model": "Checkpoint", "dataset": "Corpus"}
_TOKENIZER = ["tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json"]
_FILES = {
    # Only the root's: repositories also hold other frameworks' weights, and exports in folders.
    "model": ["config.json", "model*.safetensors", "model.safetensors.index.json", *_TOKENIZER],
    "dataset": ["README.md", "*.parquet", "*.csv", "*.tsv", "*.json", "*.jsonl"],
}
_OLD_WEIGHTS = "pytorch_model.bin"
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS_TO_ANSWER = 4
_PAUSES = (1, 3, 9)  # seconds, after a server's error


@dataclass(frozen=True)
class Snapshot:
    """A repository as it lies on disk.

    Attributes:
        source: its id or its folder.
        folder: where its files are.
        revision: the commit; ``local`` for a folder of the user's own.
    """

    source: str
    folder: Path
    revision: str

    @property
    def megabytes(self) -> float:
        """Size of its files, in 1e6 bytes."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 1e6


def snapshot(kind: Kind, source: str, revision: str | None) -> Snapshot:
    """The files of a checkpoint or corpus; fetched if they are not on this machine yet.

    Args:
        kind: what the repository holds.
        source: a hub id, or a local folder, which is taken as it is.
        revision: commit, tag or branch; ``main`` by default. What was fetched once stays: only
            :func:`fetch` looks for a newer commit of a branch.

    Raises:
        UserError: it is not here and cannot be fetched.
    """
    if (local := Path(source).expanduser()).exists():
        return Snapshot(source, local, LOCAL)
    try:
        return _located(kind, source, revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return fetch(kind, source, revision)
    except ValueError as error:
        raise _neither(kind, source) from error


def known_revision(kind: Kind, source: str, revision: str | None) -> str | None:
    """The commit of what lies on this machine, or that is asked for, without asking the hub; ``None`` if not known."""
    if revision and _COMMIT.fullmatch(revision):
        return revision
    try:
        return _located(kind, source, revision, local_files_only=True).revision
    except (LocalEntryNotFoundError, ValueError):
        return None


def fetch(kind: Kind, source: str, revision: str | None) -> Snapshot:
    """Fetch what is missing or newer on the hub, and compare every file with the hub's checksum.

    Raises:
        UserError: no network, no such repository or revision, no access, or a damaged file.
    """
    if not _REPOSITORY.fullmatch(source):
        raise _neither(kind, source)
    what = f"{_CALLED[kind]} '{source}'"
    try:
        _answers(kind, source, revision)
        found = _downloaded(kind, source, revision)
        _verify(kind, found)
    except RevisionNotFoundError as error:
        raise UserError(f"{what} has no revision '{revision}'; give a commit, tag or branch.") from error
    except GatedRepoError as error:
        raise UserError(f"{what} is gated: ask for access on its page, then log in with 'hf auth login'.") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{what} is not on the hub, or not for you; correct the id, or log in with 'hf auth login'"
            f"{_nor_a_folder(source)}."
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, httpx2.HTTPError) as error:
        raise UserError(
            f"{what} is not whole on this machine and the hub cannot be asked ({_reason(error)}); fetch it where there"
            f" is a network: {_prefetch(kind, source, revision)}{_nor_a_folder(source)}."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's, which has its own sentence
        raise UserError(
            f"{what} could not be fetched whole ({_reason(error)}); start the same command again."
        ) from error
    return found


def _answers(kind: Kind, source: str, revision: str | None) -> None:
    """Ask once, briefly, before a client that would try for minutes; a server's own trouble is left to its retries."""
    if is_offline_mode():
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    try:
        HfApi().repo_info(source, repo_type=kind, revision=revision, timeout=_SECONDS_TO_ANSWER)
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise


def _downloaded(kind: Kind, source: str, revision: str | None) -> Snapshot:
    """All files; the client itself goes on where a connection broke, but gives up at a server's error."""
    for pause in _PAUSES:
        try:
            return _located(kind, source, revision, local_files_only=False)
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
            time.sleep(pause)
    return _located(kind, source, revision, local_files_only=False)


def _located(kind: Kind, source: str, revision: str | None, local_files_only: bool) -> Snapshot:
    patterns = _FILES[kind]
    arguments = {"repo_type": kind, "revision": revision, "local_files_only": local_files_only}
    folder = Path(snapshot_download(source, allow_patterns=patterns, **arguments))
    if kind == "model" and not any(folder.glob("model*.safetensors")):
        folder = Path(snapshot_download(source, allow_patterns=[*patterns, _OLD_WEIGHTS], **arguments))
    return Snapshot(source, folder, folder.name)


def _verify(kind: Kind, found: Snapshot) -> None:
    """Remove files that are not what the hub has, so that no later run trusts them.

    Raises:
        UserError: there was one.
    """
    verified = HfApi().verify_repo_checksums(
        found.source, repo_type=kind, revision=found.revision, local_dir=found.folder
    )
    damaged = [mismatch["path"] for mismatch in verified.mismatches]
    for path in damaged:
        file = found.folder / path
        file.resolve().unlink()
        file.unlink(missing_ok=True)
    if damaged:
        raise UserError(
            f"{_CALLED[kind]} '{found.source}' arrived damaged: {', '.join(damaged)} differ from the hub's checksum and"
            " were removed; start the same command again."
        )


def _prefetch(kind: Kind, source: str, revision: str | None) -> str:
    """The command that fetches this, to be typed where there is a network."""
    option = {"model": "checkpoint", "dataset": "corpus"}[kind]
    pinned = f" -P {option}_revision={revision}" if revision else ""
    return f"mlflow run . -e prefetch --env-manager local -P {option}={source}{pinned}"


def _neither(kind: Kind, source: str) -> UserError:
    return UserError(
        f"{_CALLED[kind]} '{source}' is neither a folder here nor a hub id such as google-bert/bert-base-uncased"
        f"{_nor_a_folder(source)}."
    )


def _nor_a_folder(source: str) -> str:
    """Where a folder of this name was looked for: ``mlflow run`` changes to the project's."""
    return f" (there is no folder {Path(source).expanduser().absolute()}; if it is one, give its whole path)"


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
