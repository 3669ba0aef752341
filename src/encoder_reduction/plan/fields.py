"""What single fields of a plan may hold, and how that is typed after ``-P``."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

BUDGETS = ("latency", "flops", "parameters")
_LARGEST_SEED = 2**32 - 1  # that NumPy takes


def _how_to_distill(value: Any) -> Any:
    """``true`` and ``false``, which were all there was once."""
    return {"true": "logits", "false": "none"}.get(str(value).lower(), value)


def _split(value: Any) -> Any:
    """``128,512`` as it is typed after ``-P``; a YAML list stays as it is."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _check_budget(value: str) -> str:
    quantity, _, share = value.partition(":")
    if quantity not in BUDGETS or not re.fullmatch(r"0?\.\d+", share) or float(share) < 1e-6:
        raise ValueError(f"give one of {', '.join(BUDGETS)} and a share between 0 and 1, as latency:0.5")
    return f"{quantity}:{f'{float(share):f}'.rstrip('0')}"


Seed = Annotated[int, Field(ge=0, le=_LARGEST_SEED)]
Listed = BeforeValidator(_split)
Integers = Annotated[tuple[PositiveInt, ...], Listed]
OnceTrueOrFalse = BeforeValidator(_how_to_distill)
ShareOfWhole = Annotated[str, AfterValidator(_check_budget)]
# So that plans which do not give it are the plans that they were before there was such a field.
NotDumpedWhereAbsent = Field(exclude_if=lambda value: value is None)
Dropped = Annotated[float | None, Field(ge=0, lt=1), NotDumpedWhereAbsent]
