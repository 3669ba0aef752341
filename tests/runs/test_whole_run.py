"""One whole run of a network of two layers, on texts that say which split they are of."""

from contextlib import contextmanager

import mlflow
import pandas as pd
import pytest
import torch
from networks import small
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from encoder_reduction.data import calibration
from encoder_reduction.data.corpora import SPLITS
from encoder_reduction.plan import presets
from encoder_reduction.plan.sections import Checkpoint, Corpus
from encoder_reduction.profiling.inference import Profiler
from encoder_reduction.profiling.memory import PeakMemory
from encoder_reduction.runs import run
from encoder_reduction.tracking.store import PREDICTIONS_FILE
from encoder_reduction.training.fine_tuning import FineTuner

pytestmark = pytest.mark.slow

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *SPLITS, "good", "bad", "film", "plot", "so"]


def checkpoint(folder):
    """A network of two layers and a tokenizer that knows twelve words."""
    words = {word: index for index, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=20, **special)
    tokenizer.save_pretrained(folder)
    small("bert", layers=2, heads=4, head_size=4, intermediate=32).save_pretrained(folder)
    return Checkpoint(name="two-layers", source=str(folder))


def corpus(folder):
    """Sixteen texts a split, each with the split's name in it."""
    folder.mkdir()
    for split in SPLITS:
        texts = [f"{split} so {word} film plot"[: 20 + index] for index in range(8) for word in ("bad", "good")]
        pd.DataFrame({"text": texts, "label": [0, 1] * 8}).to_csv(folder / f"{split}.csv", index=False)
    return Corpus(name="tagged", source=str(folder))


def splits_of(input_ids):
    """Which splits token ids are of."""
    found = torch.as_tensor([word for row in input_ids for word in row])
    return {split for split in SPLITS if found.eq(WORDS.index(split)).any()}


class Seen:
    """What each part of a run was given, and in which phase its memory was read."""

    def __init__(self):
        self.calibrated, self.trained, self.selected, self.scored, self.timed = (set() for _ in range(5))
        self.events = []

    @contextmanager
    def peak_memory(self, device):
        """Seven GB where the block trains, five where it does not."""
        before, peak = len(self.events), PeakMemory("resident")
        yield peak
        peak.peak = 7.0 if "trained" in self.events[before:] else 5.0

    def watch(self, patch):
        drawn, train, logits, texts = calibration.batches, FineTuner.train, FineTuner.logits, Profiler.texts

        def batches(data, *rest):
            self.calibrated |= splits_of(data["input_ids"])
            return drawn(data, *rest)

        def training(tuner, data, validation, *rest):
            self.events.append("trained")
            self.trained |= splits_of(data["input_ids"])
            self.selected |= splits_of(validation["input_ids"])
            return train(tuner, data, validation, *rest)

        def scoring(tuner, data):
            self.scored |= splits_of(data["input_ids"])
            return logits(tuner, data)

        def timing(profiler, data, size):
            self.timed |= splits_of(data["input_ids"])
            return texts(profiler, data, size)

        patch.setattr(calibration, "batches", batches)
        patch.setattr(FineTuner, "train", training)
        patch.setattr(FineTuner, "logits", scoring)
        patch.setattr(Profiler, "texts", timing)
        patch.setattr(run, "peak_memory", self.peak_memory)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a whole run was given, and what it says."""
    folder, seen, before = tmp_path_factory.mktemp("run"), Seen(), mlflow.get_tracking_uri()
    small_values = {
        "batch_size": 8, "time_budget": 0.05, "min_repetitions": 2, "fixed_lengths": "8", "calibration_examples": 8,
        "max_length": 20, "precision": "fp32", "test_texts": 8,
    }  # fmt: skip
    plan = presets.load("packaged")[0].plan("reduce", "bert", "heads", small_values)
    inputs = {"checkpoint": checkpoint(folder / "model"), "corpus": corpus(folder / "texts")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCODER_REDUCTION_CACHE", str(folder / "cache"))
        mlflow.set_tracking_uri(f"sqlite:///{folder}/store.db")
        experiment = mlflow.create_experiment("told", artifact_location=str(folder / "artifacts"))
        seen.watch(patch)
        outcome = run.execute(plan.model_copy(update=inputs), experiment_id=experiment, progress=False)
        predictions = pd.read_csv(folder / "artifacts" / outcome.run_id / "artifacts" / PREDICTIONS_FILE)
        tags = mlflow.get_run(outcome.run_id).data.tags
    mlflow.set_tracking_uri(before)
    return seen, outcome, predictions, tags


def test_a_run_calibrates_and_trains_on_train_selects_on_validation_and_reports_test(told):
    seen, outcome, predictions, _ = told
    assert seen.calibrated == {"train"}
    assert seen.trained == {"train"}
    assert seen.selected == {"validation"}
    assert seen.scored == {"test"}
    assert seen.timed == {"test"}
    assert predictions["id"].tolist() == [f"test-{index}" for index in range(16)]
    assert outcome.metrics["accuracy"] == predictions["prediction"].eq(predictions["label"]).mean()


def test_a_run_says_the_memory_of_each_phase_under_its_name(told):
    _, outcome, _, tags = told
    assert outcome.metrics["training_memory_gb"] == 7.0
    assert outcome.metrics["inference_memory_gb"] == 5.0
    assert tags["memory_kind"] == ("gpu" if torch.cuda.is_available() else "resident")
