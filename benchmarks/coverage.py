"""How often intervals hold the truth and tests find what is not there, on planted stores.

Nine reductions that lose nothing against their baselines, nine of ten predictions shared, and training runs whose
accuracy differs by so many points (standard deviation). An interval should hold the true difference in 95% of the
cases, and one of the nine differences may be called real in 5% of the stores. Eight minutes on a busy machine:

    python benchmarks/coverage.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "support")]

import click  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from planted import judged_over_examples_alone, judged_over_seeds_and_examples, measured  # noqa: E402

METHODS = {"examples alone": judged_over_examples_alone, "seeds and examples": judged_over_seeds_and_examples}


@click.command(help=__doc__)
@click.option("--stores", default=200, show_default=True, help="Of each kind.")
def main(stores: int) -> None:
    rows = []
    for seeds in (1, 3, 5):
        for examples in (200, 25_000):
            for noise in (0.0, 0.2, 0.5):
                row = {"Seeds": f"{seeds}", "Test texts": f"{examples:,}", "Noise (points)": f"{noise}"}
                for name, judged in METHODS.items():
                    held, false = measured(np.random.default_rng(0), stores, examples, seeds, noise, judged)
                    row |= {f"Coverage, {name}": f"{held:.1%}", f"Called different, {name}": f"{false:.1%}"}
                rows.append(row)
                click.echo(" ".join(row.values()), err=True)
    click.echo(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
