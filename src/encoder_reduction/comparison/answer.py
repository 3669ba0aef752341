"""The answer in sentences: which dimension costs the most quality, which saves the most, how sure that is."""

import pandas as pd

from .changes import APART, IN_TURN, NOISE, POINTS, SAVINGS, THESE_RUNS, complete_models
from .sensitivity import plain
from .significance import ALPHA, CROSSED, MCNEMAR


def answer(rows: pd.DataFrame, table: pd.DataFrame, order: pd.DataFrame) -> str:
    """Which dimension matters most, for quality and for cost, averaged over the models that have all of them.

    Args:
        rows: the chosen configurations on the source corpus.
        table: their changes.
        order: the ranking of the dimensions.
    """
    if table.empty:
        return "There is no reduction beside its baseline yet, so there is nothing to compare."
    if order.empty:
        lines = [_no_model_is_complete(table), *_certainty(table)]
    else:
        costliest, cheapest = order.iloc[0], order.iloc[-1]
        lines = [
            f"For quality: cutting {costliest['Dimension']} costs the most accuracy ({costliest[POINTS]:+.1f} points on"
            f" average over {_averaged_over(table)}), cutting {cheapest['Dimension']} the least"
            f" ({cheapest[POINTS]:+.1f}).",
            *_costliest_again(table, order),
            *_certainty(table),
            f"For cost: {_best_savings(order)}.",
        ]
    if rows["seeds"].max() < 3:
        lines.append("With fewer than three seeds this is an observation, not a finding.")
    return " ".join(lines)


def _averaged_over(table: pd.DataFrame) -> str:
    """The models that the averages are over, and those that lack a dimension."""
    models = complete_models(table)
    named = ", ".join(models)
    others = [model for model in dict.fromkeys(table["Model"]) if model not in models]
    return f"{named}, without {', '.join(others)}, where a dimension is missing" if others else named


def _no_model_is_complete(table: pd.DataFrame) -> str:
    dims = ", ".join(dict.fromkeys(table["Dimension"]))
    return f"No model has a row of each of {dims}, so no average over models would compare them, and none is shown."


def _best_savings(order: pd.DataFrame) -> str:
    """What each dimension saves more of than the others."""
    saved: dict[str, list[str]] = {}
    for title in (each for each in SAVINGS.values() if order[each].notna().any()):
        best = order.loc[order[title].idxmin()]
        saved.setdefault(best["Dimension"], []).append(f"{plain(title)} ({best[title]:+.0f}%)")
    return "; ".join(f"cutting {dim} saves the most {', '.join(what)}" for dim, what in saved.items())


def _costliest_again(table: pd.DataFrame, order: pd.DataFrame) -> list[str]:
    """What the ranking might have been with other seeds and another test sample."""
    if "Costs most (probability)" not in order:
        return []
    shares = ", ".join(f"{row['Dimension']} {row['Costs most (probability)']:.0%}" for row in order.to_dict("records"))
    one = table.loc[table["Model"].isin(complete_models(table)), "Seeds"].min() == 1
    drawn = "the test examples drawn again for these runs" if one else "seeds and test examples drawn again"
    return [f"Were {drawn}, the costliest would be: {shares} of the time."]


def _certainty(table: pd.DataFrame) -> list[str]:
    """Sentences on which differences chance does not explain, and what one seed cannot say."""
    tested = table[table["p (Holm)"].notna()]
    if tested.empty:
        return []
    noise, one = tested["Difference"].eq(NOISE), tested["Seeds"].eq(1)
    names = ", ".join(f"{row.Model} {row.Config}" for row in tested[noise].itertuples())
    lines = [
        f"Of {len(tested)} differences in accuracy {(~noise).sum()} are beyond noise"
        f"{f' {THESE_RUNS}' if one.all() else ''} ({' and '.join(sorted(set(tested['Test'])))}, p below {ALPHA} after"
        " Holm's correction)" + (f"; within noise: {names}." if names else ".")
    ]
    if one.any():
        lines.append(
            f"{'Each row' if one.all() else 'A row with one seed'} is one training run: the test says what other texts"
            " would show of these runs, and cannot tell what the cut costs from what another seed would have changed."
        )
    return lines


def transfer_answer(kept: pd.DataFrame) -> str:
    """What adapting to the target corpus makes of what a reduction lost, by dimension, averaged over the models.

    Args:
        kept: the gaps on both corpora, of :func:`retention`.
    """
    if kept.empty:
        return (
            "How a reduction affects adaptability cannot be said without baselines on both corpora"
            " (`mlflow run . -e transfer -P model=... -P dim=none` makes those of the target)."
        )
    models = complete_models(kept)
    if not models:
        return _no_model_is_complete(kept)
    sentences = []
    for dim, own in kept[kept["Model"].isin(models)].groupby("Dimension", sort=False):
        wider = own["Wider by (points)"].mean()
        sentences.append(
            f"cutting {dim} leaves {own[f'{POINTS} source'].mean():+.1f} points on the source and"
            f" {own[f'{POINTS} target'].mean():+.1f} on the target, a gap"
            f" {abs(wider):.1f} points {'wider' if wider > 0 else 'narrower'}"
        )
    return f"After adaptation, against the adapted baselines: {'; '.join(sentences)} (over {_averaged_over(kept)})."


def recovery_answer(planned: pd.DataFrame, recovered: pd.DataFrame) -> str:
    """What each dimension costs when the trained baseline is cut and teaches what is left of it.

    Args:
        planned, recovered: the changes of the plan's rows and of the recovered ones.
    """
    keys = ["Model", "Dimension"]
    both = planned[[*keys, POINTS]].merge(recovered[[*keys, POINTS]], on=keys, suffixes=("", " recovered"))
    if both.empty:
        return "No recovered reduction stands beside the plan's yet."
    means = both.groupby("Dimension")[[POINTS, f"{POINTS} recovered"]].agg(["mean", "size"])
    said = [
        f"cutting {dim} leaves {row[f'{POINTS} recovered', 'mean']:+.1f} points instead of {row[POINTS, 'mean']:+.1f}"
        for dim, row in means.sort_values((POINTS, "mean")).iterrows()
    ]
    return f"Against the baselines, on average over the models that have both: {'; '.join(said)}."


def method(table: pd.DataFrame) -> str:
    """What the columns of the changes mean."""
    tests = set(table["Test"].dropna())
    lines = [
        "Accuracy in points of the test split, with its 95% interval; resources in percent of the baseline.",
        "Speed-up is measured, beside it stands what the number of FLOPs promises.",
    ]
    if CROSSED in tests:
        lines.append(
            "Interval and p of rows with several seeds are of the Behrens-Fisher test over seeds and examples: what"
            " other seeds and other texts would show."
        )
    if MCNEMAR in tests:
        lines.append(
            f"Rows with one seed are judged {THESE_RUNS}, by McNemar's exact test over the examples, with the interval"
            " of the mean gain: what other texts would show, not what another seed would."
        )
    if tests:
        lines.append("p and what it is called are after Holm's correction; an interval is of its difference alone.")
    if table["Timed"].eq(IN_TURN).any():
        lines.append("Times marked 'in turn' were measured together with the baseline, in one process.")
    if table["Timed"].eq(APART).any():
        lines.append("Times marked 'apart' come from runs of their own and are as doubtful as the machine was busy.")
    return " ".join(lines)
