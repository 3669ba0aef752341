"""Where the rows come from and where the chosen models are: runs, and the MLflow Model Registry."""

from collections.abc import Callable, Sequence

import pandas as pd

from ..plan.sections import RULES, Budget
from ..tracking import pages
from ..tracking.registry import Card, alias_of, register_model
from .changes import Row
from .equal_budget import AtBudget
from .selection import best


def registered_models(
    found: pd.DataFrame, rule: str, card_of: Callable[[Row], Card], equal: Sequence[AtBudget] = ()
) -> str:
    """Register the best reduction of each dimension and overall, per model, and say what they are called.

    Of several seeds the first is taken.

    Args:
        found: all configurations on the source corpus.
        rule: what is best, on validation.
        card_of: what the registry says of the model of a row.
        equal: what there is at equal budget; the chosen one of each is registered, too.
    """
    overall = best_reductions(found, rule).assign(alias="best")
    by_dim = best(_reduced(found), rule)
    chosen = pd.concat([overall, by_dim.assign(alias="best-" + by_dim["dim"]), *_at_budgets(equal)])
    lines, gone = [], []
    for _, own in chosen.groupby("model", sort=False):
        for row in own.to_dict("records"):
            run_id = next(iter(row["run_ids"].values()))
            uri = register_model(row["model"], row["alias"], run_id, card_of(row))
            if uri:
                how = ", recovered" if row["start"] == "baseline" else ""
                lines.append(f"- `{uri}`: {row['config']}{how}, test accuracy {row['accuracy']:.3f}")
            else:
                gone.append(f"{row['alias']} of {row['model']} ({row['config']})")
    if not lines:
        return "None of the reductions has its model in the store."
    at_budgets = "; at a budget, the most accurate" if any(at.chosen for at in equal) else ""
    said = f"The best is {RULES[rule]}, on validation{at_budgets}."
    said += " `mlflow artifacts download -u URI -d FOLDER` fetches one."
    if gone:
        said += f" Not registered, since their models are not in the store: {', '.join(gone)}."
    return "\n".join([*lines, "", said])


def _at_budgets(equal: Sequence[AtBudget]) -> list[pd.DataFrame]:
    """The rows of the dimension that was chosen at each budget."""
    answered = [(at, at.rows["dim"].eq(at.chosen.dim)) for at in equal if at.chosen]
    return [at.rows[taken].assign(alias=alias_of("best", Budget(budget=at.budget).name)) for at, taken in answered]


def best_reductions(found: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The reduction that a rule takes of each model, whatever its dimension."""
    return best(_reduced(found), rule, per=["model"])


def _reduced(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["dim"].ne("none")]


def run_links(rows: pd.DataFrame, experiment_id: str) -> str:
    """The MLflow runs behind each row, with links where the tracking store has pages."""
    lines = []
    for row in rows.to_dict("records"):
        stage = " adapted" if row["stage"] == "transfer" else ""
        links = (f"seed {seed} {_link(run_id, experiment_id)}" for seed, run_id in row["run_ids"].items())
        start = " recovered" if row["start"] == "baseline" else ""
        lines.append(f"- {row['checkpoint']} {row['config']}{start}{stage}: {', '.join(links)}")
    return "\n".join(lines)


def _link(run_id: str, experiment_id: str) -> str:
    url = pages.address(pages.run(experiment_id, run_id))
    return f"[{run_id}]({url})" if url else f"`{run_id}`"
