"""Which errors are the user's or the machine's, however a library has wrapped them, and what is said of them."""

import errno
import json
import pickle

import pyarrow as pa
import pytest
from safetensors import SafetensorError

from encoder_reduction.errors import UserError, explain, reading

DAMAGED = {
    "weights": lambda: SafetensorError("header too large"),
    "old weights": lambda: pickle.UnpicklingError("invalid load key"),
    "a table": lambda: pa.ArrowInvalid("magic bytes not found"),
    "text": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "json": lambda: json.JSONDecodeError("Expecting value", "{", 1),
}


def wrapped(error, how):
    try:
        try:
            raise error
        except Exception as first:
            if how == "from":
                raise OSError("Unable to load weights.") from first
            if how == "while":
                raise RuntimeError("Unable to load weights.")  # noqa: B904
            raise
    except Exception as last:
        return last


@pytest.mark.parametrize("how", ["as it is", "from", "while"])
@pytest.mark.parametrize("what", sorted(DAMAGED))
def test_a_damaged_file_is_known_however_it_is_wrapped(what, how):
    error = wrapped(DAMAGED[what](), how)
    sentence = explain(error)
    assert "could not be read" in sentence
    assert type(DAMAGED[what]()).__name__ in sentence
    with pytest.raises(UserError, match=r"^model\.bin could not be read"), reading("model.bin"):
        raise error


def test_a_bug_that_comes_up_meanwhile_stays_a_bug():
    def bug():
        try:
            raise pa.ArrowInvalid("magic bytes not found")
        except pa.ArrowInvalid:
            {}["column"]

    with pytest.raises(KeyError) as error:
        bug()
    assert explain(error.value) is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize(
    ("variable", "default"),
    [
        ("HF_HOME", "/home/me/.cache/huggingface/hub/x"),
        ("ENCODER_REDUCTION_CACHE", "/home/me/.cache/encoder-reduction/x"),
    ],
)
def test_a_folder_that_takes_nothing_is_named_with_its_variable(monkeypatch, number, variable, default):
    monkeypatch.delenv(variable, raising=False)
    assert f"set {variable} to" in explain(OSError(number, "No", default))
    assert variable not in explain(OSError(number, "No", "/data/shared/x"))
    monkeypatch.setenv(variable, "/data/shared")
    sentence = explain(OSError(number, "No", "/data/shared/x"))
    assert "/data/shared/x" in sentence
    assert f"set {variable} to" in sentence
