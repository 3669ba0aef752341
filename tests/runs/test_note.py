"""What a run's page says first, for every kind of run."""

import pytest
from networks import small

from encoder_reduction.plan import presets
from encoder_reduction.runs.note import note

METRICS = {
    "accuracy": 0.8125,
    "test_examples": 25000.0,
    "train_examples": 22500.0,
    "inference_ms": 1.2345,
    "parameters": 66.96e6,
}
PRESET, _ = presets.load("packaged")


CUT = "minilm-bert made smaller (`heads-4`), "
RECOVERED = {"start": "baseline"}


@pytest.mark.parametrize(
    ("stage", "dim", "given", "done"),
    [
        ("baseline", None, {}, "minilm-bert as it is, fine-tuned on 22,500 texts of movie-snippets (1 epoch,"),
        ("reduce", "heads", {}, f"{CUT}cut from its pretrained encoder, fine-tuned on"),
        ("reduce", "heads", {"init": "random"}, f"{CUT}with random weights as a control, fine-tuned"),
        ("reduce", "heads", {**RECOVERED, "distill": "hidden"}, f"{CUT}cut from the trained baseline, fine-tuned on"),
        ("reduce", "heads", {**RECOVERED, "distill": "logits"}, "seed 42, taught by a teacher's logits)."),
        ("reduce", "heads", {**RECOVERED, "epochs": 0}, "cut from the trained baseline, not trained again."),
        ("reduce", "mixed", {"budget": "latency:0.5"}, "(`mixed-latency-0.5`), cut from its pretrained encoder to lat"),
        ("transfer", "heads", {"epochs": 2}, "minilm-bert (`heads-4`), adapted: fine-tuned on 22,500 texts of product"),
    ],
)
def test_it_says_what_was_done(stage, dim, given, done):
    plan = PRESET.plan(stage, "bert", dim, given)
    model = small("bert", layers=2, heads=4, head_size=4, intermediate=32)
    if stage == "transfer":
        plan = plan.model_copy(update={"reductions": PRESET.plan("reduce", "bert", dim).reductions})
    said, figures, load = note(plan, model, METRICS, "1234").split("\n\n")
    assert done in said
    assert (
        figures
        == "**Test accuracy 0.812** (25,000 texts), **inference 1.23 ms** an example, **67.0 million** parameters."
    )
    assert 'load_model("runs:/1234/bert-' in load
    assert "." not in load.partition("1234/")[2].partition('"')[0]
