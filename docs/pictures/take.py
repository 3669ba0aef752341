"""The README's pictures, taken anew from the latest comparison on a tracking server (make ui) in Debian's Chromium.

MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python docs/pictures/take.py          # all
MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python docs/pictures/take.py pages    # MLflow's pages alone

MLFLOW_EXPERIMENT_NAME names the experiment of the comparison, where it is not that of the runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / folder) for folder in ("src", "tests/support")]

import mlflow  # noqa: E402
from browser import launched, opened  # noqa: E402

from encoder_reduction.tracking import pages  # noqa: E402
from encoder_reduction.tracking.destination import EXPERIMENT  # noqa: E402

DRAWN = (
    "equal_budget", "equal_budget_costs", "trade_off", "relative_changes", "resources", "retention", "learning_curves",
)  # fmt: skip
ROW = ".ag-center-cols-container .ag-row"


def main() -> None:
    """Pictures of the comparison, of its report, and of the pages of MLflow that people are sent to."""
    experiment, compared_in = (
        mlflow.get_experiment_by_name(name).experiment_id
        for name in (EXPERIMENT, os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
    )
    pages.arrange(experiment)
    if sys.argv[1:] == ["pages"]:
        with launched() as browser:
            take_pages(browser, experiment)
        return
    finished = [f"tags.stage = '{stage}' and attributes.status = 'FINISHED'" for stage in ("compare", "study")]
    compare = next(run_id for states in finished for run_id in found(compared_in, states, "start_time DESC"))
    for name in DRAWN:
        mlflow.artifacts.download_artifacts(f"runs:/{compare}/{name}.png", dst_path=str(HERE))
    with TemporaryDirectory() as folder, launched() as browser:
        report = mlflow.artifacts.download_artifacts(f"runs:/{compare}/report.html", dst_path=folder)
        for name, width, height in (("report_desktop", 1200, 1800), ("report_phone", 390, 1400)):
            with opened(browser, f"file://{report}", width, height) as (page, _):
                page.screenshot(path=HERE / f"{name}.png")
        with in_mlflow(browser, f"{pages.run(compared_in, compare)}/artifacts/report.html", 1500, 1000) as page:
            page.frame_locator("iframe").locator("figure svg").first.wait_for()
            page.screenshot(path=HERE / "report_in_mlflow.png")
        take_pages(browser, experiment)


def take_pages(browser: Browser, experiment: str) -> None:
    """Pictures of the runs, of their charts and models, of the best model, and of four runs side by side."""
    best = mlflow.MlflowClient().get_model_version_by_alias(f"{EXPERIMENT}-bert", "best")
    shown = {
        "runs_page": (pages.runs(experiment), ROW),
        "charts_page": (pages.charts(experiment), ".parcoords"),
        "models_page": (pages.models(experiment), ROW),
        "version_page": (pages.version(best.name, best.version), "text=A reduced encoder."),
    }
    for name, (path, sign) in shown.items():
        with in_mlflow(browser, path, 1850, 1000) as page:
            page.locator(sign).first.wait_for()
            if name == "models_page":
                show_figures(page, "movie-snippets-test", ("accuracy", "f1", "inference_ms", "speed_up"))
            page.screenshot(path=HERE / f"{name}.png")
    states = (
        "tags.model = 'roberta' and tags.corpus = 'movie-snippets' and tags.seed = '42' and tags.start = 'pretrained'"
    )
    with in_mlflow(browser, pages.compared(experiment, found(experiment, states, "start_time")), 1350, 1500) as page:
        page.get_by_text("Visualizations").click()
        page.get_by_text("embedding_parameters").wait_for()
        page.screenshot(path=HERE / "compare_runs.png")


def show_figures(page: Page, data: str, figures: tuple[str, ...]) -> None:
    """Let the Models page show these figures of a data set beside names and registrations."""
    page.get_by_role("button", name="Columns").click()

    def click(text: str, part: str) -> None:
        node = page.locator("[class*=tree-treenode]").filter(has=page.get_by_text(text, exact=text in figures))
        node.locator(f"[class*=tree-{part}]").first.click()

    for text in ("Status", "Logged from", "Source run", "Dataset", "Metrics", "Parameters"):
        click(text, "checkbox")
    click(f"Dataset: {data}", "switcher")
    for figure in figures:
        click(figure, "checkbox")
    page.keyboard.press("Escape")
    page.mouse.click(900, 30)
    page.locator(".ag-header-cell").filter(has_text=figures[-1]).first.wait_for()


def found(where: str, states: str, order: str) -> list[str]:
    """The ids of some runs."""
    return [run.info.run_id for run in mlflow.MlflowClient().search_runs([where], states, order_by=[order])]


@contextmanager
def in_mlflow(browser: Browser, path: str, width: int, height: int) -> Iterator[Page]:
    """A page of the tracking server."""
    with opened(browser, pages.address(path), width, height) as (page, _):
        yield page


if __name__ == "__main__":
    main()
