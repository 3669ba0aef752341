import re

import pytest
import yaml

from encoder_reduction.command_line import load_study
from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.plan.equal_budgets import EqualBudgets
from encoder_reduction.plan.study import Study


@pytest.fixture(scope="module")
def packaged():
    return presets.load("packaged")[0]


def test_paper_preset_is_the_customers_plan():
    paper, _ = presets.load("paper")
    assert {key: model.source for key, model in paper.models.items()} == {
        "bert": "google-bert/bert-base-uncased",
        "roberta": "FacebookAI/roberta-base",
        "distilbert": "distilbert/distilbert-base-uncased",
    }
    assert (paper.source.source, paper.target.source) == ("stanfordnlp/imdb", "fancyzhx/yelp_polarity")
    training = paper.fine_tuning
    assert (training.batch_size, training.epochs, training.learning_rate) == (16, 3, 5e-5)
    assert (training.precision, training.max_length) == ("fp16", 512)
    assert (paper.transfer.learning_rate, paper.transfer.epochs, paper.transfer.max_length) == (2e-5, 1, 512)
    assert all(reduction.keep == 0.5 for reduction in paper.reductions.values())


def test_auto_says_what_it_chose_and_why(monkeypatch):
    for gpu, name in ((True, "paper"), (False, "packaged")):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        preset, line = presets.load("auto")
        assert preset.name == name
        assert name in line
        assert "CUDA GPU is" in line


def test_transfer_states_only_what_differs(packaged):
    assert packaged.transfer.batch_size == packaged.fine_tuning.batch_size
    assert packaged.transfer.learning_rate != packaged.fine_tuning.learning_rate


def test_overrides_reach_the_section_they_name(packaged):
    plan = packaged.plan(
        "reduce", "bert", "hidden", {"learning_rate": "2e-5", "keep": "0.25", "seed": 7, "epochs": None}
    )
    assert plan.fine_tuning.learning_rate == 2e-5
    assert plan.fine_tuning.epochs == packaged.fine_tuning.epochs
    assert plan.reductions["hidden"].keep == 0.25
    assert plan.seed == 7


def test_several_dimensions_share_what_applies_to_them(packaged):
    plan = packaged.plan("reduce", "bert", "heads+layers", {"strategy": "influence"})
    assert plan.reductions["layers"].strategy == "influence"
    assert plan.reductions["heads"].strategy == packaged.reductions["heads"].strategy
    assert plan.dim == "heads+layers"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("reduce", "albert", "hidden", {}), ["'albert'", "bert, roberta, distilbert"]),
        (("reduce", "bert", "width", {}), ["'width'", "heads, hidden, layers"]),
        (("reduce", "bert", "hidden", {"epoch": 2, "foo": 1}), ["epoch, foo", "epochs", "learning_rate"]),
        (("baseline", "bert", None, {"keep": 0.5}), ["keep", "this run takes"]),
        (("reduce", "bert", "hidden", {"epochs": -1, "batch_size": "a"}), ["epochs=-1", "batch_size=a"]),
        (("reduce", "bert", "hidden", {"keep": 1.5}), ["keep=1.5", "less than or equal to 1"]),
        (("reduce", "bert", "layers", {"criterion": "gradient"}), ["criterion=gradient", "dim=layers"]),
        (("reduce", "bert", "heads", {"strategy": "alternate"}), ["'alternate'", "prune, regroup"]),
        (("reduce", "bert", "heads+layers", {"size": 6}), ["size=6", "heads+layers"]),
    ],
)
def test_a_bad_request_is_one_sentence(packaged, arguments, words):
    with pytest.raises(UserError) as error:
        packaged.plan(*arguments)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_users_file_is_checked_as_a_whole(tmp_path):
    values = yaml.safe_load((presets.PRESETS / "packaged.yaml").read_text())
    values["seeds"] = []
    values["fine_tuning"]["batch"] = values["fine_tuning"].pop("batch_size")
    values["surplus"] = 1
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as error:
        presets.load(str(path))
    for word in (
        "my.yaml",
        "seeds",
        "'fine_tuning.batch_size' is missing",
        "unknown key 'fine_tuning.batch'",
        "surplus",
    ):
        assert word in str(error.value)


def test_an_unknown_preset_names_those_that_exist(tmp_path):
    with pytest.raises(UserError, match="'papr' does not exist; choose auto, packaged, paper"):
        presets.load("papr")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        presets.load(str(broken))


def test_a_run_may_take_another_checkpoint_and_corpus():
    preset, _ = presets.load("paper")
    given = {"checkpoint": "me/tiny-bert", "corpus": "/data/reviews/", "text_column": "review", "label_column": None}
    plan = preset.plan("baseline", "bert", overrides=given)
    assert (plan.checkpoint.name, plan.checkpoint.source, plan.checkpoint.revision) == (
        "tiny-bert",
        "me/tiny-bert",
        None,
    )
    assert (plan.corpus.name, plan.corpus.source, plan.corpus.revision) == ("reviews", "/data/reviews/", None)
    assert (plan.corpus.text_column, plan.corpus.label_column) == ("review", "label")
    assert plan.corpus.validation_examples == preset.source.validation_examples
    assert plan.builds_on == ()
    transfer = preset.plan("transfer", "bert", "heads", {"corpus": "/data/reviews"})
    assert (transfer.corpus.name, transfer.builds_on[0].corpus.name) == ("reviews", "imdb")
    pinned = preset.plan("baseline", "bert", overrides={"checkpoint_revision": "main"})
    assert (pinned.checkpoint.name, pinned.checkpoint.revision) == ("bert-base-uncased", "main")


def test_what_is_prefetched_is_all_of_the_preset_or_what_is_named():
    preset, _ = presets.load("paper")
    assert [each.name for each in preset.sources({"corpus": None})] == [
        "bert-base-uncased", "roberta-base", "distilbert-base-uncased", "imdb", "yelp-polarity",
    ]  # fmt: skip
    assert [each.source for each in preset.sources({"corpus": "me/texts"})] == ["me/texts"]
    with pytest.raises(UserError, match="validation_examples=1 is not allowed"):
        preset.sources({"validation_examples": 1})


def test_a_transfer_builds_on_a_reduction_with_its_own_values_or_with_the_presets(packaged):
    plan = packaged.plan("transfer", "bert", "heads", {"epochs": 2, "seed": 7})
    alike, planned = plan.builds_on
    assert (alike.stage, alike.dim, alike.seed, alike.fine_tuning.epochs) == ("reduce", "heads", 7, 2)
    assert planned == packaged.plan("reduce", "bert", "heads", {"seed": 7})
    (baseline,) = packaged.plan("transfer", "bert").builds_on
    assert (baseline.stage, baseline.dim) == ("baseline", "none")
    (teacher,) = packaged.plan("reduce", "bert", "layers", {"distill": True, "keep": 0.3}).builds_on
    assert teacher == packaged.plan("baseline", "bert")


def test_a_cut_of_what_is_trained_builds_on_the_baseline_as_given_or_as_the_preset_has_it(packaged):
    plan = packaged.plan("reduce", "bert", "heads", {"start": "baseline", "learning_rate": 1e-5, "seed": 7})
    alike, planned = plan.builds_on
    assert (alike.stage, alike.fine_tuning.learning_rate, alike.seed) == ("baseline", 1e-5, 7)
    assert planned == packaged.plan("baseline", "bert", None, {"seed": 7})
    assert packaged.plan("reduce", "bert", "heads", {"start": "baseline", "epochs": 0}).builds_on == (
        packaged.plan("baseline", "bert"),
    )
    assert packaged.plan("reduce", "bert", "heads", {"start": "checkpoint", "distill": "hidden"}).builds_on == ()
    assert packaged.plan("reduce", "bert", "heads", {"distill": "logits", "teacher": "abc"}).builds_on == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "epochs=0 leaves the classification head as it was drawn: give start=baseline"),
        (
            {"start": "baseline", "init": "random"},
            "init=random draws every weight afresh, whatever was cut: leave out start=baseline",
        ),
        (
            {"start": "scratch"},
            "start=scratch is not allowed: input should be 'pretrained', 'baseline' or",
        ),
        ({"distill": "all"}, "distill=all is not allowed: input should be 'none', 'logits' or 'hidden'"),
        ({"spread": "even"}, "spread=even is not allowed"),
        ({"start": "baseline", "epochs": 0, "distill": "hidden"}, "epochs=0 learns nothing: leave out distill=hidden"),
        ({"teacher": "abc"}, "teacher=abc teaches nothing: give distill=logits or distill=hidden too"),
    ],
)
def test_a_start_or_a_recovery_that_makes_no_sense_is_one_sentence(packaged, given, said):
    with pytest.raises(UserError, match=re.escape(said)):
        packaged.plan("reduce", "bert", "heads", given)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (
            {"budget": "joules:0.5"},
            "budget=joules:0.5 is not allowed: give one of latency, flops, parameters and a share between",
        ),
        ({"budget": "flops:1.2"}, "budget=flops:1.2 is not allowed"),
        ({"budget": "flops:0.0"}, "budget=flops:0.0 is not allowed"),
        ({"budget": "flops"}, "budget=flops is not allowed"),
        ({"budget": "flops:0.5", "keep": 0.5}, "budget=flops:0.5 decides how much stays: leave out keep"),
        ({"budget": "flops:0.5", "size": 6}, "leave out size"),
        ({"budget": "flops:0.5", "strategy": "regroup"}, "strategy=regroup saves nothing"),
    ],
)
def test_a_budget_that_makes_no_sense_is_one_sentence(packaged, given, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        packaged.plan("reduce", "bert", "heads", given)


def test_how_a_budget_is_met_needs_one(packaged):
    with pytest.raises(UserError, match="search_candidates=4 says how a budget is met: give budget too"):
        packaged.plan("reduce", "bert", "heads", {"search_candidates": 4})
    assert packaged.plan("reduce", "bert", "heads", {"budget": "latency:.50"}).budget.budget == "latency:0.5"


def test_mixed_is_every_dimension_and_their_order_is_the_presets(packaged):
    mixed = packaged.plan("reduce", "bert", "mixed")
    assert set(mixed.reductions) == set(packaged.reductions)
    assert mixed.dim == "mixed"
    assert mixed == packaged.plan("reduce", "bert", "layers+intermediate+hidden+heads")
    assert packaged.plan("reduce", "bert", "layers+heads").dim == "heads+layers"
    with pytest.raises(
        UserError, match="Unknown dim 'width'; choose one of: heads, hidden, layers, intermediate, mixed"
    ):
        packaged.plan("reduce", "bert", "heads+width")


def test_spread_is_of_heads_and_intermediate(packaged):
    with pytest.raises(UserError, match="spread=global does not apply to dim=hidden, but to heads and intermediate"):
        packaged.plan("reduce", "bert", "hidden", {"spread": "global"})
    both = packaged.plan("reduce", "bert", "layers+heads", {"spread": "global"}).reductions
    assert (both["layers"].spread, both["heads"].spread) == ("uniform", "global")


@pytest.mark.parametrize(("typed", "meant"), [("true", "logits"), ("hidden", "hidden"), ("logits", "logits")])
def test_distill_true_means_logits(packaged, typed, meant):
    assert packaged.plan("reduce", "bert", "layers", {"distill": typed}).distillation.distill == meant
    assert packaged.plan("reduce", "bert", "layers", {"distill": "false"}).distillation is None


@pytest.mark.parametrize("seed", [-1, 2**32, "1.5"])
@pytest.mark.parametrize("where", ["seed", "calibration_seed"])
def test_a_seed_that_numpy_does_not_take_is_refused(seed, where):
    with pytest.raises(UserError, match=f"{where}={seed} is not allowed"):
        presets.load("packaged")[0].plan("reduce", "bert", "heads", {where: seed})
    for allowed in (0, 2**32 - 1):
        presets.load("packaged")[0].plan("reduce", "bert", "heads", {where: allowed})


@pytest.mark.parametrize(("stage", "dim"), [("baseline", None), ("transfer", "heads")])
def test_only_reductions_may_stay_untrained(packaged, stage, dim):
    with pytest.raises(UserError, match=f"epochs=0 is for reductions, which are cut and refitted: give a {stage} more"):
        packaged.plan(stage, "bert", dim, {"epochs": 0})


@pytest.mark.parametrize("preset", ["packaged", "paper"])
def test_what_is_trained_is_refitted_where_it_is_cut(preset):
    """Without it three of six layers are hardly better than chance before they are trained."""
    preset = presets.load(preset)[0]
    how = {
        start: preset.plan("reduce", "bert", "layers", {"start": start}).reductions["layers"].correct
        for start in ("pretrained", "baseline", "checkpoint")
    }
    assert how == {"pretrained": "none", "baseline": "least_squares", "checkpoint": "least_squares"}
    plain = preset.plan("reduce", "bert", "layers", {"start": "baseline", "correct": "none"})
    assert plain.reductions["layers"].correct == "none"


def test_a_study_cuts_its_baselines_to_each_budget_and_recovers_them_alike(packaged):
    budgets = EqualBudgets(budgets="latency:0.5,flops:.40,latency:0.50", budget_models="bert,roberta")
    plans = Study(packaged, {"epochs": 2.0}, (1, 2), budgets).at_equal_budget()
    assert len(plans) == 2 * 2 * 2 * 6
    assert {(plan.start, plan.seed, plan.fine_tuning.epochs) for plan in plans} == {
        ("baseline", 1, 2),
        ("baseline", 2, 2),
    }
    assert {plan.budget.budget for plan in plans} == {"latency:0.5", "flops:0.4"}
    assert {plan.distillation for plan in plans} == {packaged.recovery}
    dims = ["heads", "hidden", "layers", "intermediate", "heads+intermediate", "mixed"]
    assert [plan.dim for plan in plans[:6]] == dims


def test_the_paper_has_no_budget_until_one_is_given_and_the_packaged_one_for_one_model():
    paper, packaged = (Study(presets.load(name)[0]) for name in ("paper", "packaged"))
    assert paper.at_equal_budget() == []
    assert {plan.model for plan in packaged.at_equal_budget()} == {"bert"}
    given = load_study("paper", None, {"budgets": "latency:0.5", "epochs": 1.0})
    assert {plan.model for plan in given.at_equal_budget()} == {"bert", "roberta", "distilbert"}
    assert given.overrides == {"epochs": 1.0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budgets": "joules:0.5"}, "joules:0.5 is not allowed: give one of latency, flops, parameters"),
        ({"budget_models": "bart"}, "bart is not allowed"),
        (
            {"budget_dims": "heads+width"},
            "width is no dimension; give heads, hidden, layers, intermediate, some joined",
        ),
    ],
)
def test_a_budget_of_a_study_that_makes_no_sense_is_one_sentence(given, said):
    with pytest.raises(UserError, match=re.escape(said)):
        load_study("packaged", None, given)
