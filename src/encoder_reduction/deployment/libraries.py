"""The optional libraries, imported where they are used: whoever neither exports nor runs ONNX needs none of them."""

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
