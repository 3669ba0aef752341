"""What a reduced network learns from besides the labels: which teacher, and how it is asked."""

from datasets import Dataset
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..data import corpora
from ..errors import UserError
from ..models import checkpoints, tokenizers
from ..models.architectures import sizes_of
from ..plan.precision import resolve_precision
from ..plan.sections import RunPlan
from ..reductions import Cut
from ..tracking import store
from ..training import distillation
from ..training.distillation import Teacher
from ..training.prediction import logits_of


def teach(
    plan: RunPlan,
    source_run: str | None,
    whole: PreTrainedModel,
    cut: Cut,
    tokenizer: Tokenizer,
    tokenised: Dataset,
    train: Dataset,
) -> tuple[Dataset, Teacher | None]:
    """The teacher of a plan that distils: its logits beside the training texts, or itself.

    Args:
        plan: says how, and which run is the teacher where it is not what was cut or the baseline.
        source_run: the baseline run, where the plan builds on it.
        whole: the network before it was cut.
        cut: the network afterwards.
        tokenizer: that of both.
        tokenised: the training split.
        train: its texts.

    Returns:
        The training split, with logits ``(classes,)`` of each example where these are all that is asked of the
        teacher; the teacher, where it is to run beside the student.

    Raises:
        UserError: the teacher reads texts in other tokens, or its hidden states are not those that were cut.
    """
    settings = plan.distillation
    run_id = settings.teacher or source_run
    read = plan.fine_tuning
    fingerprint = f"{corpora.fingerprint(train)}-{read.max_length}-{resolve_precision(read.precision)}"
    logits = distillation.cached_logits(run_id, fingerprint) if run_id and settings.distill == "logits" else None
    if logits is not None:
        return distillation.with_teacher(tokenised, logits), None
    model = whole if plan.start != "pretrained" and not settings.teacher else _model_of(run_id, tokenizer)
    model = model.to(whole.device).requires_grad_(False).eval()
    if settings.distill == "hidden":
        _check_hidden(model, whole, run_id)
        basis = None if cut.basis is None else cut.basis.to(whole.device)
        return tokenised, Teacher(model, cut.layers, basis)
    logits = logits_of(model, tokenizer, tokenised, read.precision, progress=True)
    if run_id:
        distillation.cache_logits(run_id, fingerprint, logits)
    return distillation.with_teacher(tokenised, logits), None


def _model_of(run_id: str, tokenizer: Tokenizer) -> PreTrainedModel:
    store.finished_run(run_id)  # or says that there is none
    with store.downloaded_model(run_id) as folder:
        model, its = checkpoints.load_folder(folder)
    if not tokenizers.alike(its, tokenizer):
        raise UserError(
            f"teacher={run_id} reads texts in other tokens than this checkpoint ({its.vocab_size:,} against"
            f" {tokenizer.vocab_size:,}, or others): give a run of a checkpoint with the same tokenizer."
        )
    return model


def _check_hidden(teacher: PreTrainedModel, whole: PreTrainedModel, run_id: str | None) -> None:
    found, wanted = sizes_of(teacher), sizes_of(whole)
    if (found.layers, found.hidden) != (wanted.layers, wanted.hidden):
        raise UserError(
            f"teacher={run_id} has {found.layers} layers of hidden size {found.hidden}, what was cut {wanted.layers} of"
            f" {wanted.hidden}: hidden states can be learnt from a teacher of the same dimensions only; give"
            " distill=logits."
        )
