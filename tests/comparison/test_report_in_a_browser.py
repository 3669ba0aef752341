"""The report as a person sees it: in a window, on a phone, and in MLflow's artifact view, in a real browser."""

import mlflow
import numpy as np
import pytest
from browser import opened
from machines import tracked
from stores import finished, with_predictions

from encoder_reduction import comparison
from encoder_reduction.plan import presets
from encoder_reduction.plan.study import Study
from encoder_reduction.tracking import opening

pytestmark = pytest.mark.slow

QUESTION = "Which dimension matters most, for quality and for cost?"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The server and the run of a comparison that has every table and picture."""
    with tracked(tmp_path_factory.mktemp("server")) as server:
        experiment = mlflow.set_experiment("browsed").experiment_id
        rng = np.random.default_rng(0)
        for model in ("bert", "roberta", "distilbert"):
            for dim, accuracy in {"none": 0.8, "heads": 0.79, "hidden": 0.7, "layers": 0.75}.items():
                for stage in (None, "transfer"):
                    right = rng.random(200) < accuracy
                    figures = {"accuracy": right.mean(), "flops_per_example": accuracy}
                    with_predictions(finished(model=model, dim=dim, stage=stage, **figures), right)
        with opening.open_run(experiment_id=experiment) as run:
            comparison.compare(Study(presets.load("packaged")[0]), run)
        yield server.address, run


@pytest.fixture(scope="module")
def page_file(compared, tmp_path_factory):
    _, run = compared
    folder = tmp_path_factory.mktemp("page")
    return mlflow.artifacts.download_artifacts(f"runs:/{run.run_id}/report.html", dst_path=str(folder))


@pytest.mark.parametrize(("width", "height"), [(1200, 900), (390, 844)], ids=["window", "phone"])
def test_the_page_answers_first_fits_its_window_and_fetches_nothing(chromium, page_file, width, height):
    with opened(chromium, f"file://{page_file}", width, height) as (page, requests):
        assert requests == [f"file://{page_file}"]
        answer = page.get_by_text("For quality: cutting hidden costs the most accuracy").bounding_box()
        assert answer["y"] < height
        # Wide tables scroll by themselves; the page does not go sideways.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = [picture.bounding_box() for picture in page.locator("figure svg").all()]
        assert len(boxes) == 4
        assert all(0 < box["width"] <= width and box["height"] > 100 for box in boxes)
        for table in page.locator(".table").all():
            assert table.bounding_box()["width"] <= width


def test_the_page_opens_in_mlflows_artifact_view(chromium, compared):
    address, run = compared
    url = f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/report.html"
    with opened(chromium, url, 1500, 1000) as (page, _):
        shown = page.frame_locator("iframe").get_by_text(QUESTION)
        shown.wait_for()
        assert shown.is_visible()
        assert page.frame_locator("iframe").locator("figure svg").first.bounding_box()["height"] > 100
