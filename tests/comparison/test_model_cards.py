"""What the registry says of models, from a real store whose runs were written for it."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from stores import finished, with_model, with_predictions

from encoder_reduction import comparison
from encoder_reduction.plan import presets
from encoder_reduction.plan.study import Study
from encoder_reduction.tracking import opening
from encoder_reduction.tracking.logged_models import latest_model
from encoder_reduction.tracking.store import RATIOS_FILE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("experiment_id")]

CONDITIONS = {"workload": "texts", "batch_size": 16, "max_length": 128, "precision": "bf16", "device": "some CPU"}
RECOVERED = {"start": "baseline", "distill": "hidden"}


def right(share, wrong_first=True):
    """Of 400 test texts, so many right."""
    count = round(400 * share)
    return np.arange(400) >= 400 - count if wrong_first else np.arange(400) < count


def ran(tokenizer, dim="none", accuracy=0.8, model=True, **more):
    tags = {"resolved_precision": "bf16"} | more.pop("tags", {})
    run_id = finished(dim=dim, accuracy=accuracy, f1=accuracy, tags=tags, **more)
    with_predictions(run_id, right(accuracy))
    if model:
        with_model(run_id, tokenizer)
    return run_id


def measured(reference, **ratios):
    rows = [
        {"run_id": run_id, "reference": reference, "speed_ratio": ratio, "low": ratio - 0.1, "high": ratio + 0.1}
        for run_id, ratio in {reference: 1.0, **ratios}.items()
    ]
    with mlflow.start_run():
        mlflow.set_tags({"stage": "profile", "preset": "packaged"})
        mlflow.log_text(pd.DataFrame(rows).assign(**CONDITIONS).to_csv(index=False), RATIOS_FILE)


def compared(rule="accuracy"):
    with opening.open_run() as run:
        comparison.compare(Study(presets.load("packaged")[0]), run, comparison.Choice(rule))


def version(alias, model="bert"):
    return mlflow.MlflowClient().get_model_version_by_alias(f"encoder-reduction-{model}", alias)


def test_a_version_says_what_it_is_how_good_how_fast_and_from_which_run(packaged, experiment_id):
    tokenizer = packaged["bert"][1]
    baseline = ran(tokenizer, accuracy=0.8, model=False)
    heads = ran(tokenizer, "heads", 0.7, validation_accuracy=0.7, parameters=90.0)
    layers = ran(tokenizer, "layers", 0.6, config="layers-3", validation_accuracy=0.6, parameters=70.0, model=False)
    again = ran(tokenizer, "layers", 0.75, config="layers-3", validation_accuracy=0.9, tags=RECOVERED, parameters=70.0)
    measured(baseline, **{heads: 1.25, layers: 2.0})
    compared()

    said = version("best-heads")
    assert said.run_id == heads
    registered = latest_model(heads).tags["mlflow.modelVersions"]
    assert json.loads(registered) == [{"name": "encoder-reduction-bert", "version": said.version}]
    name = mlflow.get_run(heads).info.run_name
    page = f"#/experiments/{experiment_id}/runs/{heads}"
    assert said.description == "\n\n".join(
        [
            "**A reduced encoder.**",
            "minilm-bert, heads-6, cut from the pretrained encoder, fine-tuned on movie-snippets (seed 42).",
            "**Test accuracy 0.700**, weighted F1 0.700.",
            "The baseline's accuracy is 0.800: **-10.0 points** (95% -12.9 to -7.1, loss on these runs).",
            "**1.25 times as fast** as the baseline (95% 1.15 to 1.35, measured in turn), with 90% of its parameters.",
            f"From run [{name}]({page}): its data, parameters, figures.",
        ]
    )
    figures = {"accuracy": "0.7", "f1": "0.7", "baseline_accuracy": "0.8", "speed_up": "1.25", "source_run": heads}
    what = {"dim": "heads", "config": "heads-6", "checkpoint": "minilm-bert", "corpus": "movie-snippets"}
    assert said.tags == figures | what | {"preset": "packaged", "seed": "42"}

    best = version("best")
    assert best.run_id == again
    assert "cut from the trained baseline" in best.description
    assert "**2.00 times as fast** as the baseline (95% 1.90 to 2.10, measured in turn, on a network of the same" in (
        best.description
    )
    about = mlflow.MlflowClient().get_registered_model("encoder-reduction-bert").description
    assert about.startswith("**bert made smaller.** Each version says what it is")


def test_what_was_not_measured_in_turn_is_not_said_and_an_earlier_speed_goes(packaged, experiment_id):
    tokenizer, client = packaged["bert"][1], mlflow.MlflowClient()
    ran(tokenizer, accuracy=0.8, model=False)
    ran(tokenizer, "heads", 0.7, inference_ms=40.0)
    compared()
    said = version("best")
    assert "so nothing is said of its speed" in said.description
    assert "speed_up" not in said.tags
    client.set_model_version_tag(said.name, said.version, "speed_up", "3")
    client.set_model_version_tag(said.name, said.version, "approved_by", "me")
    client.update_model_version(said.name, said.version, "Mine.")
    client.update_registered_model(said.name, "Ours.")
    compared()
    again = version("best")
    assert (again.description, client.get_registered_model(said.name).description) == ("Mine.", "Ours.")
    assert "speed_up" not in again.tags
    assert again.tags["approved_by"] == "me"


def test_without_a_baseline_nothing_is_held_against_one(packaged, experiment_id):
    ran(packaged["bert"][1], "heads", 0.7)
    compared()
    assert "No baseline was compared." in version("best").description
    assert "baseline_accuracy" not in version("best").tags


@pytest.mark.parametrize("rule", ["efficiency", "knee"])
def test_whatever_a_rule_takes_has_a_card(packaged, experiment_id, rule):
    """Of planned and recovered rows together it may take what neither has by itself."""
    tokenizer = packaged["bert"][1]
    ran(tokenizer, accuracy=0.8, model=False)
    for criterion, accuracy, ms in (("gradient", 0.85, 10.0), ("magnitude", 0.84, 8.0)):
        figures = {"validation_accuracy": accuracy, "inference_ms": ms}
        ran(tokenizer, "heads", accuracy, params={"criterion": criterion}, **figures)
    ran(tokenizer, "heads", 0.853, validation_accuracy=0.853, inference_ms=10.5, tags=RECOVERED)
    compared(rule)
    assert version("best").description.startswith("**A reduced encoder.**")
