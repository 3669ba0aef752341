"""The networks of a run: what it starts from, what is left of it, and how that is served."""

from datasets import Dataset
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..data import calibration
from ..models import checkpoints
from ..models.architectures import sizes_of
from ..models.dropout import set_dropout
from ..plan.precision import calibration_arithmetic, compute_dtype
from ..plan.sections import FineTuning, RunPlan
from ..reductions import Cut, cut, needs_calibration
from ..reductions.observed import Batch
from ..tracking import store


def load_model(plan: RunPlan, source_run: str | None) -> tuple[PreTrainedModel, Tokenizer]:
    """The plan's checkpoint, or the model of the run that the plan starts from; with the plan's dropout."""
    model, tokenizer = _load(plan, source_run)
    set_dropout(model, plan.fine_tuning)
    return model, tokenizer


def _load(plan: RunPlan, source_run: str | None) -> tuple[PreTrainedModel, Tokenizer]:
    if plan.start == "checkpoint":
        return checkpoints.load_trained(plan.checkpoint, plan.model)
    if plan.stage != "transfer" and plan.start == "pretrained":
        return checkpoints.load(plan.checkpoint, plan.seed, plan.model)
    with store.downloaded_model(source_run) as folder:
        return checkpoints.load_folder(folder)


def reduce(plan: RunPlan, model: PreTrainedModel, tokenizer: Tokenizer, train: Dataset) -> Cut:
    """The reduced model of a ``reduce`` plan; the model as it is for any other.

    Args:
        plan: says what is cut, and how.
        model: the whole network.
        tokenizer: its tokenizer.
        train: the tokenised training split, of which calibration texts are drawn.
    """
    if plan.stage != "reduce":
        return Cut(model, list(range(sizes_of(model).layers)))
    batches = calibration_batches(plan, model, tokenizer, train)
    with calibration_arithmetic(plan.fine_tuning.precision):
        return cut(model, plan.reductions, batches, plan.seed)


def calibration_batches(plan: RunPlan, model: PreTrainedModel, tokenizer: Tokenizer, train: Dataset) -> list[Batch]:
    """What the plan's reductions look at; nothing where none of them does."""
    asking = [reduction for reduction in plan.reductions.values() if needs_calibration(reduction)]
    if not asking:
        return []
    examples = max(reduction.calibration_examples for reduction in asking)
    seed = next((r.calibration_seed for r in asking if r.calibration_seed is not None), plan.seed)
    return calibration.batches(train, tokenizer, examples, seed, model.device)


def state_inference(model: PreTrainedModel, tokenizer: Tokenizer, settings: FineTuning) -> None:
    """Write into model and tokenizer how they are measured and scored, so that they are served like that."""
    model.config.inference_dtype = str(compute_dtype(settings.precision)).removeprefix("torch.")
    tokenizer.model_max_length = settings.max_length
