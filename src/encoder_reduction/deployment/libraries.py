"""The optional libraries, imported where they are used: whoever neither exports nor runs ONNX needs none of them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from ..errors import UserError

_OPTIONAL = ("onnx", "onnxscript", "onnxruntime")


def library(name: str) -> ModuleType:
    """One of the optional libraries, or of their modules.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{name.partition('.')[0]} is not installed, without which no model runs outside of PyTorch: pip install"
            " -e .[deploy], or -r requirements.txt, which has it."
        ) from error


def check_installed() -> None:
    """Ask for all of them, before anything is done that would be lost without one.

    Raises:
        UserError: one is not installed.
    """
    for name in _OPTIONAL:
        library(name)


@contextmanager
def silenced(*names: str) -> Iterator[None]:
    """Within the block these loggers say errors alone: what a library's parts say of each other is no user's matter.

    Args:
        names: of the loggers; ``""`` is the root.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
