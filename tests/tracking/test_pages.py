"""Where people look: the addresses that are printed, and what a browser that knows nothing of us shows there."""

import json
import re
import sys

import mlflow
import pytest
from browser import opened
from machines import tracked
from stores import finished

from conftest import ROOT
from encoder_reduction.tracking import opening, pages

ACCURACIES = {"bert/baseline": 0.82, "bert/heads-6": 0.85, "bert/hidden-192": 0.71, "bert/layers-3": 0.79}
BEST_FIRST = ["bert/heads-6", "bert/baseline", "bert/layers-3", "bert/hidden-192"]


def test_what_stands_in_an_address_is_quoted():
    assert pages.version("a/b c", 3) == "#/models/a%2Fb%20c/versions/3"
    assert pages.compared("7", ["a", "b"]) == "#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D&experiments=%5B%227%22%5D"


@pytest.mark.parametrize(
    ("store", "served", "server"),
    [
        ("sqlite:///mlflow.db", ", once `make ui` serves them", "http://127.0.0.1:5000"),
        ("sqlite:///elsewhere/mlflow.db", ", once `mlflow ui` serves this store", "http://127.0.0.1:5000"),
        ("http://server:81/", "", "http://server:81"),
    ],
)
def test_the_person_who_started_a_command_is_told_what_serves_the_pages(monkeypatch, store, served, server):
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: store)
    monkeypatch.setattr(pages, "_arranged", [])
    assert pages.where_to_look() == []
    pages._arranged.append("7")
    assert pages.where_to_look() == [
        f"Runs, best first{served}: {server}/{pages.runs('7')}",
        f"The same as charts{served}: {server}/{pages.charts('7')}",
    ]
    assert pages.address("#/models") == (None if served else "http://server:81/#/models")


def test_views_are_written_once_and_again_where_they_differ(experiment_id, monkeypatch):
    written, real = [], mlflow.MlflowClient.set_experiment_tag
    monkeypatch.setattr(
        mlflow.MlflowClient, "set_experiment_tag", lambda self, *words: (written.append(words[1]), real(self, *words))
    )
    pages.arrange(experiment_id)
    assert written == ["mlflow.sharedViewState.best-first", "mlflow.sharedViewState.transfers", "mlflow.note.content"]
    pages.arrange(experiment_id)
    assert len(written) == 3
    real(mlflow.MlflowClient(), experiment_id, written[0], "{}")
    pages.arrange(experiment_id)
    assert written[3:] == written[:1]
    assert mlflow.get_experiment(experiment_id).tags[written[0]] != "{}"


def test_a_store_that_refuses_views_keeps_nobody_from_a_run(experiment_id, monkeypatch):
    def refused(*_):
        raise mlflow.exceptions.MlflowException("Permission denied")

    monkeypatch.setattr(pages, "_arranged", [])
    monkeypatch.setattr(mlflow.MlflowClient, "set_experiment_tag", refused)
    pages.arrange(experiment_id)
    assert pages.where_to_look() == []  # An address would name a view that is not there.


def test_an_experiment_says_how_to_read_it_unless_somebody_has_written_another(experiment_id):
    pages.arrange(experiment_id)
    note, client = "mlflow.note.content", mlflow.MlflowClient()
    said = mlflow.get_experiment(experiment_id).tags[note]
    for page in (pages.runs, pages.charts, pages.transfers, pages.models):
        assert f"]({page(experiment_id)})" in said
    client.set_experiment_tag(experiment_id, note, said.replace("measures it", "weighs it"))
    pages.arrange(experiment_id)
    assert mlflow.get_experiment(experiment_id).tags[note] == said
    client.set_experiment_tag(experiment_id, note, "Mine.")
    pages.arrange(experiment_id)
    assert mlflow.get_experiment(experiment_id).tags[note] == "Mine."


@pytest.mark.parametrize(
    ("view", "names"), [("best-first", BEST_FIRST), ("transfers", ["bert/heads-6/transfer"])], ids=["best", "transfers"]
)
def test_a_view_takes_the_finished_runs_of_one_corpus_best_first(experiment_id, view, names):
    fill(experiment_id)
    saved = json.loads(mlflow.get_experiment(experiment_id).tags[f"mlflow.sharedViewState.{view}"])
    state = json.loads(saved["state"])
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = mlflow.MlflowClient().search_runs([experiment_id], state["searchFilter"], order_by=[order])
    assert [run.info.run_name for run in found] == names


def fill(experiment_id):
    """A study of four runs and a transfer, and what must not stand among them."""
    with opening.open_run(experiment_id=experiment_id) as run:
        run.describe("study/packaged", {"stage": "study"}, {})
    for name, accuracy in ACCURACIES.items():
        config = name.removeprefix("bert/")
        ran(run, name, dim=config.partition("-")[0].replace("baseline", "none"), config=config, accuracy=accuracy)
    ran(run, "bert/heads-6/transfer", dim="heads", stage="transfer", accuracy=0.95)
    mlflow.MlflowClient().set_terminated(ran(run, "bert/failed", accuracy=0.99), "FAILED")


def ran(parent, name, **what):
    return finished(tags={"mlflow.runName": name, "mlflow.parentRunId": parent.run_id}, **what)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A server with a study, and the id of its experiment."""
    with tracked(tmp_path_factory.mktemp("server")) as server:
        experiment_id = mlflow.set_experiment("looked at").experiment_id
        fill(experiment_id)
        yield server.address, experiment_id


def cells(page):
    """What the table of runs shows: the run's name and its figures, a row a run."""
    page.locator(".ag-row [col-id='metrics.`accuracy`']").first.wait_for()
    found = {}
    for row in page.locator(".ag-row").all():
        texts = {cell.get_attribute("col-id"): cell.inner_text() for cell in row.locator("[col-id]").all()}
        found.setdefault(int(row.get_attribute("row-index")), {}).update(texts)
    return [found[index] for index in sorted(found)]


def column(page, name):
    return [row[name].split("\n")[-1] for row in cells(page)]  # A run's colour stands before its name.


@pytest.fixture(scope="module")
def asked(study, command, tmp_path_factory):
    """What `make ui` says of an experiment before it serves."""
    folder, env = tmp_path_factory.mktemp("away"), {"MLFLOW_TRACKING_URI": study[0]}
    words = (sys.executable, ROOT / "entry_points" / "ui.py")
    return lambda name: command(*words, f"--experiment={name}", cwd=folder, env=env)


@pytest.fixture(scope="module")
def printed(asked):
    """The addresses of the experiment's runs and charts."""
    said = asked("looked at")
    assert (said.returncode, said.stdout) == (0, "")
    return re.findall(r"^(?:Runs, best first|The same as charts): (\S+)$", said.stderr, re.M)


@pytest.mark.slow
def test_of_an_experiment_that_is_not_there_it_is_said_what_makes_it(study, asked):
    said = asked("encoder-reduction")
    assert said.returncode == 1
    assert said.stderr.endswith(
        f"Error: Experiment 'encoder-reduction' is not in {study[0]}; there are: Default, looked at. `make study` makes"
        " encoder-reduction, `make ui EXPERIMENT=NAME` looks at another.\n"
    )


@pytest.fixture
def look(chromium):
    """Opens an address in a browser that has never seen MLflow."""
    return lambda address: opened(chromium, address, 1900, 1000, known=False)


@pytest.mark.slow
def test_the_address_of_the_runs_opens_on_them_best_first_with_their_figures(look, printed):
    with look(printed[0]) as (page, _):
        assert column(page, "attributes.`Run Name`") == BEST_FIRST
        assert column(page, "metrics.`accuracy`") == ["0.85", "0.82", "0.79", "0.71"]
        first = cells(page)[0]
        assert (first["metrics.`inference_ms`"], first["tags.`dim`"]) == ("10", "heads")
        assert page.get_by_role("button", name="Best first").is_visible()


@pytest.mark.slow
def test_the_address_of_the_charts_opens_on_those_that_matter(look, printed):
    with look(printed[1]) as (page, _):
        page.locator(".parcoords").wait_for()
        assert page.get_by_text("The figures that matter").is_visible()
        bars = page.locator(".barlayer .bartext").all_text_contents()  # from below
        assert bars == ["0.71", "0.79", "0.82", "0.85"]
        assert page.locator(".xtitle").all_text_contents() == ["inference_ms", "parameters"]
        assert page.locator(".scatterlayer .point").count() == 8


@pytest.mark.slow
def test_the_page_of_transfers_opens_on_them_alone(look, study):
    server, experiment_id = study
    with look(f"{server}/{pages.transfers(experiment_id)}") as (page, _):
        assert column(page, "attributes.`Run Name`") == ["bert/heads-6/transfer"]
