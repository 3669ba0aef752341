"""The tokenizer of a checkpoint, held against its network: what would give unknown words in silence is refused."""

import inspect
import logging
from functools import partial
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from .architectures import family_of
from .weights import readable

_LOGGER = logging.getLogger(__name__)

# Embeddings are padded to a multiple of 64 or 128, and some vocabularies are filled half; a tenth is none of these.
_LEAST_SHARE = 0.1


def load(folder: Path, model: PreTrainedModel, what: str) -> PreTrainedTokenizerBase:
    """The tokenizer that lies beside the weights of a model, giving what the model takes.

    Raises:
        UserError: there is none, it cannot be read, or its ids are not those of the model's embeddings.
    """
    with readable(folder, what):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        _keep_files(tokenizer, folder)
    _check_vocabulary(tokenizer, model, what)
    _check_padding(tokenizer, model, what)
    # A tokenizer of another family's class also gives token types, which DistilBERT does not take.
    takes = inspect.signature(model.forward).parameters
    asked = dict.fromkeys([*tokenizer.model_input_names, "attention_mask"])  # Without it, padding is read as text.
    tokenizer.model_input_names = [name for name in asked if name in takes]
    return tokenizer


def alike(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers give the same ids to the same tokens."""
    return one.get_vocab() == other.get_vocab() and one.all_special_ids == other.all_special_ids


def _keep_files(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Let a tokenizer written in Python be saved with the very files that it was read from.

    Some classes save less than they read: BERTweet's writes its merges without their counts, and takes the last word of
    each for the count when it reads them again.
    """
    files = [folder / name for name in tokenizer.vocab_files_names.values()]
    contents = {file.name: file.read_bytes() for file in files if file.is_file()}
    tokenizer.save_vocabulary = partial(_write, contents)


def _write(contents: dict[str, bytes], save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
    written = []
    for name, content in contents.items():
        file = Path(save_directory) / (f"{filename_prefix}-{name}" if filename_prefix else name)
        file.write_bytes(content)
        written.append(str(file))
    return tuple(written)


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, what: str) -> None:
    rows = model.get_input_embeddings().num_embeddings
    vocabulary = tokenizer.get_vocab()
    words = set(vocabulary.values()) - set(tokenizer.all_special_ids)
    if not words or len(vocabulary) < _LEAST_SHARE * rows:
        raise UserError(
            f"{what} has a tokenizer of {len(vocabulary):,} tokens ({len(words):,} of them words) for {rows:,}"
            " embeddings, as where the tokenizer's files are missing; put those it was trained with beside its weights."
        )
    beyond = {token: index for token, index in vocabulary.items() if index >= rows}
    if beyond:
        token, index = max(beyond.items(), key=lambda item: item[1])
        raise UserError(
            f"{what} has a tokenizer with ids up to {index:,} ('{token}') for {rows:,} embeddings (0 to {rows - 1:,});"
            " give the tokenizer that it was trained with."
        )


def _check_padding(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, what: str) -> None:
    if tokenizer.pad_token_id is None:
        raise UserError(f"{what} has a tokenizer without a padding token; name one in its tokenizer_config.json.")
    padding = model.config.pad_token_id
    if family_of(model).counts_from_padding and tokenizer.pad_token_id != padding:
        _LOGGER.warning(
            "%s pads with id %d, but its network takes id %d for padding ('%s') and gives it no position of its own.",
            what, tokenizer.pad_token_id, padding, tokenizer.convert_ids_to_tokens(padding),
        )  # fmt: skip
