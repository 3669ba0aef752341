"""Which dimensions a study compares at which budgets."""

from typing import Annotated

from pydantic import AfterValidator, Field

from .fields import Listed, ShareOfWhole
from .sections import MIXED, MODELS, STRATEGIES, ModelKey, Section


def _check_dims(value: str) -> str:
    """Dimensions that are cut together, each once, in one order."""
    named = list(STRATEGIES) if value == MIXED else value.split("+")
    if unknown := [dim for dim in named if dim not in STRATEGIES]:
        raise ValueError(f"{unknown[0]} is no dimension; give {', '.join(STRATEGIES)}, some joined by +, or {MIXED}")
    return MIXED if set(named) == set(STRATEGIES) else "+".join(dim for dim in STRATEGIES if dim in named)


_Dimensions = Annotated[str, AfterValidator(_check_dims)]
_EachOnce = AfterValidator(lambda values: tuple(dict.fromkeys(values)))


class EqualBudgets(Section):
    """Which dimensions are compared at which budgets: each cut from the trained baseline, and recovered alike."""

    budgets: Annotated[tuple[ShareOfWhole, ...], Listed, _EachOnce] = Field(
        (), description="what the reductions are compared at, as latency:0.5,latency:0.33; none where it is empty"
    )
    budget_models: Annotated[tuple[ModelKey, ...], Listed, _EachOnce] = Field(
        MODELS, description="the models that are cut to these budgets, as bert,roberta"
    )
    budget_dims: Annotated[tuple[_Dimensions, ...], Listed, _EachOnce] = Field(
        ("heads", "hidden", "layers", "intermediate", "heads+intermediate", MIXED),
        description="what is cut to meet them; what cannot is a row that says how far it goes",
    )
    search_candidates: int | None = Field(
        None,
        gt=0,
        description="of several dimensions: how many ways are tried at each budget; as compress does when absent",
    )
    search_examples: int | None = Field(
        None, ge=0, description="texts on which the best of them are recovered before one is taken; likewise"
    )

    @property
    def searching(self) -> dict[str, int]:
        """How several dimensions are searched, where that is said."""
        return self.model_dump(include={"search_candidates", "search_examples"}, exclude_none=True)
