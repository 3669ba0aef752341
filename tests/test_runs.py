import pytest

from encoder_reduction import runs
from encoder_reduction.training import NonFiniteLossError


class Diverging:
    """A fine-tuner whose loss becomes nan, after a good epoch or before any."""

    def __init__(self, recovered):
        self.recovered = recovered

    def train(self, train, validation):
        error = NonFiniteLossError("The training loss became nan.")
        error.recovered = self.recovered
        raise error


class Recorder:
    """Notes what a run is told to keep."""

    def __init__(self):
        self.kept, self.tags = [], {}

    def model(self, model, tokenizer):
        self.kept.append((model, tokenizer))

    def tag(self, tags):
        self.tags |= tags


@pytest.mark.parametrize("recovered", [True, False])
def test_a_diverged_run_keeps_its_last_good_model_if_it_has_one(recovered):
    run, splits = Recorder(), {"train": None, "validation": None}
    with pytest.raises(NonFiniteLossError):
        runs.train(Diverging(recovered), splits, run, "model", "tokenizer")
    assert run.kept == ([("model", "tokenizer")] if recovered else [])
    assert ("kept_model" in run.tags) == recovered
