"""What a run says of itself: its name, and the parameters of its plan and of its network."""

from networks import small

from encoder_reduction.plan import presets
from encoder_reduction.runs import description


def test_a_run_is_called_by_what_is_left_of_it():
    model = small("bert", layers=2, heads=3, head_size=4, intermediate=16)
    plan = presets.load("packaged")[0].plan("reduce", "bert", "layers", {"seed": 5})
    assert description.run_name(plan, model) == "bert/layers-2/seed-5"
    both = plan.model_copy(update={"reductions": {"heads": plan.reductions["layers"], **plan.reductions}})
    assert description.config_name(both, model) == "heads-3+layers-2"


def test_parameters_are_those_of_the_plan_and_of_the_network():
    model = small("bert", layers=2, heads=3, head_size=4, intermediate=16)
    plan = presets.load("packaged")[0].plan("reduce", "bert", "layers", {"seed": 5, "epochs": 2, "keep": 0.4})
    params = description.flat_params(plan, model)
    expected = {
        "model": "bert", "dim": "layers", "seed": 5, "epochs": 2.0, "test_texts": 16, "keep": 0.4,
        "strategy": "alternate", "num_hidden_layers": 2, "num_attention_heads": 3, "head_size": 4, "hidden_size": 12,
        "intermediate_size": 16,
    }  # fmt: skip
    assert {name: params.get(name) for name in expected} == expected
    assert None not in params.values()
    both = plan.model_copy(update={"reductions": {"heads": plan.reductions["layers"], **plan.reductions}})
    assert {"heads.keep", "layers.keep"} <= set(description.flat_params(both, model))
    baseline = presets.load("packaged")[0].plan("baseline", "bert")
    assert "keep" not in description.flat_params(baseline, model)
