"""The README's pictures, taken anew from the latest comparison on a tracking server (make ui) in Debian's Chromium.

MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python docs/pictures/take.py

MLFLOW_EXPERIMENT_NAME names the experiment of the comparison, where it is not that of the runs.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / folder) for folder in ("src", "tests/support")]

import mlflow  # noqa: E402
from browser import launched, opened  # noqa: E402

from encoder_reduction.tracking.destination import EXPERIMENT  # noqa: E402

DRAWN = (
    "equal_budget", "equal_budget_costs", "trade_off", "relative_changes", "resources", "retention", "learning_curves",
)  # fmt: skip


def main() -> None:
    """Pictures of the comparison, of its report, and of four runs side by side."""
    server = mlflow.get_tracking_uri()
    experiment, compared_in = (
        mlflow.get_experiment_by_name(name).experiment_id
        for name in (EXPERIMENT, os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
    )

    def found(where: str, states: str, order: str) -> list[str]:
        return [run.info.run_id for run in mlflow.MlflowClient().search_runs([where], states, order_by=[order])]

    compare = found(compared_in, "tags.stage = 'compare' and attributes.status = 'FINISHED'", "start_time DESC")[0]
    for name in DRAWN:
        mlflow.artifacts.download_artifacts(f"runs:/{compare}/{name}.png", dst_path=str(HERE))
    states = "tags.model = 'roberta' and tags.corpus = 'movie-snippets' and tags.seed = '42'"
    roberta = found(experiment, states, "start_time")
    runs = ",".join(f'"{run_id}"' for run_id in roberta)

    with TemporaryDirectory() as folder, launched() as browser:
        report = mlflow.artifacts.download_artifacts(f"runs:/{compare}/report.html", dst_path=folder)
        for name, width, height in (("report_desktop", 1200, 1800), ("report_phone", 390, 1400)):
            with opened(browser, f"file://{report}", width, height) as (page, _):
                page.screenshot(path=HERE / f"{name}.png")
        url = f"{server}/#/experiments/{compared_in}/runs/{compare}/artifacts/report.html"
        with opened(browser, url, 1500, 1000) as (page, _):
            page.frame_locator("iframe").locator("figure svg").first.wait_for()
            page.screenshot(path=HERE / "report_in_mlflow.png")
        url = f'{server}/#/compare-runs?runs=[{runs}]&experiments=["{experiment}"]'
        with opened(browser, url, 1350, 1500) as (page, _):
            page.get_by_text("Visualizations").click()
            page.get_by_text("embedding_parameters").wait_for()
            page.screenshot(path=HERE / "compare_runs.png")


if __name__ == "__main__":
    main()
