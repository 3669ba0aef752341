"""The answer in sentences: which dimension costs the most quality, which saves the most, how sure that is."""

import pandas as pd

from .changes import APART, IN_TURN, NOISE, POINTS, SAVINGS
from .sensitivity import plain
from .significance import ALPHA


def answer(rows: pd.DataFrame, table: pd.DataFrame, order: pd.DataFrame) -> str:
    """Which dimension matters most, for quality and for cost, averaged over the models.

    Args:
        rows: the chosen configurations on the source corpus.
        table: their changes.
        order: the ranking of the dimensions.
    """
    if table.empty:
        return "There is no reduction beside its baseline yet, so there is nothing to compare."
    costliest, cheapest = order.iloc[0], order.iloc[-1]
    lines = [
        f"For quality: cutting {costliest['Dimension']} costs the most accuracy ({costliest[POINTS]:+.1f} points on"
        f" average over {table['Model'].nunique()} models), cutting {cheapest['Dimension']} the least"
        f" ({cheapest[POINTS]:+.1f}).",
        *_certainty(table, order),
        f"For cost: {_best_savings(order)}.",
    ]
    if rows["seeds"].max() < 3:
        lines.append("With fewer than three seeds this is an observation, not a finding.")
    return " ".join(lines)


def _best_savings(order: pd.DataFrame) -> str:
    """What each dimension saves more of than the others."""
    saved: dict[str, list[str]] = {}
    for title in SAVINGS.values():
        best = order.loc[order[title].idxmin()]
        saved.setdefault(best["Dimension"], []).append(f"{plain(title)} ({best[title]:+.0f}%)")
    return "; ".join(f"cutting {dim} saves the most {', '.join(what)}" for dim, what in saved.items())


def _certainty(table: pd.DataFrame, order: pd.DataFrame) -> list[str]:
    """Sentences on what of this another test sample might have shown differently."""
    lines = []
    if "Costs most (probability)" in order:
        shares = ", ".join(
            f"{row['Dimension']} {row['Costs most (probability)']:.0%}" for row in order.to_dict("records")
        )
        lines.append(f"Were the test examples drawn again, the costliest would be: {shares} of the time.")
    tested = table[table["p (Holm)"].notna()]
    if len(tested):
        noise = tested[tested["Difference"].eq(NOISE)]
        names = ", ".join(f"{row.Model} {row.Config}" for row in noise.itertuples())
        lines.append(
            f"Of {len(tested)} differences in accuracy {len(tested) - len(noise)} are beyond noise (McNemar's exact"
            f" test, p below {ALPHA} after Holm's correction)" + (f"; within noise: {names}." if names else ".")
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
    sentences = []
    for dim, own in kept.groupby("Dimension", sort=False):
        wider = own["Wider by (points)"].mean()
        sentences.append(
            f"cutting {dim} leaves {own[f'{POINTS} source'].mean():+.1f} points on the source and"
            f" {own[f'{POINTS} target'].mean():+.1f} on the target, a gap"
            f" {abs(wider):.1f} points {'wider' if wider > 0 else 'narrower'}"
        )
    return f"After adaptation, against the adapted baselines: {'; '.join(sentences)}."


def method(table: pd.DataFrame) -> str:
    """What the columns of the changes mean."""
    lines = [
        "Accuracy in points of the test split, with the 95% interval of a paired bootstrap over the test examples"
        " and p of McNemar's exact test after Holm's correction; resources in percent of the baseline.",
        "Speed-up is measured, beside it stands what the number of FLOPs promises.",
    ]
    if table["Seeds"].gt(1).any():
        lines.append(
            "Over several seeds, the test is the sign test of each example's mean gain; the interval over seeds is"
            " Student's, of the differences between runs of the same seed."
        )
    if table["Timed"].eq(IN_TURN).any():
        lines.append("Times marked 'in turn' were measured together with the baseline, in one process.")
    if table["Timed"].eq(APART).any():
        lines.append("Times marked 'apart' come from runs of their own and are as doubtful as the machine was busy.")
    return " ".join(lines)
