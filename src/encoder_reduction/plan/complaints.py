"""Values checked as they enter a plan; one sentence for whatever is wrong with them."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import UserError

AnySection = TypeVar("AnySection", bound=BaseModel)


def updated(section: AnySection, given: Mapping[str, Any]) -> AnySection:
    """The section with those of the given values that are its own."""
    own = {key: value for key, value in given.items() if key in type(section).model_fields}
    return validated(type(section), **(section.model_dump() | own)) if own else section


def one_of(what: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse a value that is not allowed.

    Raises:
        UserError: names what is.
    """
    if value not in allowed:
        raise UserError(f"Unknown {what} '{value}'; choose one of: {', '.join(allowed)}.")


def refuse_unknown(given: Mapping[str, Any], known: set[str]) -> None:
    """Refuse parameters that a run does not take.

    Raises:
        UserError: names them and those that it takes.
    """
    unknown = sorted(set(given) - known)
    if unknown:
        raise UserError(f"Unknown parameter: {', '.join(unknown)}; this run takes: {', '.join(sorted(known))}.")


def validated(cls: type[AnySection], where: str = "", **values: Any) -> AnySection:
    """Build a section; say everything that is wrong with it in one sentence."""
    try:
        return cls(**values)
    except ValidationError as error:
        raise UserError(where + "; ".join(_complaint(cls, item) for item in error.errors()) + ".") from error


def _complaint(cls: type[BaseModel], item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        section: Any = cls
        for part in item["loc"][:-1]:
            section = section.model_fields[part].annotation if part in getattr(section, "model_fields", {}) else None
        known = f" (known here: {', '.join(section.model_fields)})" if section else ""
        return f"unknown key '{key}'{known}"
    if item["type"] == "missing":
        return f"'{key}' is missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"{key}={item['input']} is not allowed: {message[0].lower()}{message[1:]}"
