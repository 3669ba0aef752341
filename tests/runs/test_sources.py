"""The run that a transfer or a distillation starts from, on a store whose runs were written for it."""

import pytest
from stores import finished

from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.runs.sources import find_source

SEEDS = (42, 43, 44)


def source(experiment_id, dim="heads", seed=42, **values):
    return find_source(
        experiment_id, presets.load("packaged")[0].plan("transfer", "bert", dim, {"seed": seed, **values})
    )


def test_each_seed_starts_from_its_own_of_the_configuration_that_is_best_over_the_seeds(experiment_id):
    better = {seed: finished(dim="heads", seed=seed, validation_accuracy=0.80, params={"criterion": "gradient"})
              for seed in SEEDS}  # fmt: skip
    for seed, lucky in zip(SEEDS, (0.85, 0.7, 0.7), strict=True):  # has the single best run
        finished(dim="heads", seed=seed, validation_accuracy=lucky, params={"criterion": "magnitude"})
    assert [source(experiment_id, seed=seed) for seed in SEEDS] == list(better.values())


def test_one_lucky_seed_is_not_held_against_three(experiment_id):
    planned = {seed: finished(dim="heads", seed=seed, validation_accuracy=0.80, params={"criterion": "gradient"})
               for seed in SEEDS}  # fmt: skip
    finished(dim="heads", seed=42, validation_accuracy=0.95, params={"criterion": "magnitude"})
    assert source(experiment_id) == planned[42]


def test_a_milder_cut_or_a_longer_training_is_not_adapted(experiment_id):
    planned = finished(dim="heads", validation_accuracy=0.7, params={"keep": 0.5})
    finished(dim="heads", config="heads-10", validation_accuracy=0.9, params={"keep": 0.83})
    finished(dim="heads", validation_accuracy=0.9, params={"epochs": 10})
    finished(dim="heads", validation_accuracy=0.9, params={"init": "random"})
    finished(dim="heads", validation_accuracy=0.9, tags={"distill": "logits"})
    finished(dim="heads", validation_accuracy=0.9, tags={"start": "checkpoint"})
    assert source(experiment_id) == planned


def test_a_recovered_reduction_is_adapted_where_it_is_the_better_one(experiment_id):
    recovered = {"tags": {"start": "baseline", "distill": "hidden"}, "params": {"distill": "hidden"}}
    planned = finished(dim="heads", validation_accuracy=0.8)
    worse = finished(dim="heads", validation_accuracy=0.7, **recovered)
    assert source(experiment_id) == planned
    finished(dim="heads", validation_accuracy=0.95, tags={"start": "baseline"}, params={"epochs": 0})
    assert source(experiment_id) == planned
    better = finished(dim="heads", validation_accuracy=0.9, **recovered)
    assert source(experiment_id) == better != worse


def test_a_study_with_values_of_its_own_adapts_what_it_reduced(experiment_id):
    planned = finished(dim="heads", params={"epochs": "1"})
    assert source(experiment_id, epochs=2) == planned
    own = finished(dim="heads", params={"epochs": "2"})
    assert source(experiment_id, epochs=2) == own
    assert source(experiment_id) == planned


def test_the_latest_repetition_is_taken(experiment_id):
    finished(dim="heads")
    again = finished(dim="heads")
    assert source(experiment_id) == again


def test_a_missing_seed_is_named_with_the_command_that_makes_it(experiment_id):
    finished(dim="heads", seed=42)
    command = r"mlflow run \. -e reduce -P model=bert -P dim=heads -P preset=packaged -P seed=43\."
    with pytest.raises(UserError, match=rf"dim=heads preset=packaged seed=43 .* first: {command}"):
        source(experiment_id, seed=43)


def test_the_curve_of_the_learning_rate_is_not_taken_for_the_setting(experiment_id):
    planned = finished(dim="heads", learning_rate=1e-6)
    assert source(experiment_id) == planned
