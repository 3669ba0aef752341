"""What a person reads first on a run's page: what was done, the figures that matter, how to load the model."""

from collections.abc import Mapping

from transformers import PreTrainedModel

from ..plan.sections import RunPlan
from ..tracking.logged_models import EXAMPLE
from .description import config_name, model_name


def note(plan: RunPlan, model: PreTrainedModel, metrics: Mapping[str, float], run_id: str) -> str:
    """The description of a finished run, as Markdown.

    Args:
        plan: of the run.
        model: as it is served.
        metrics: its final figures.
        run_id: MLflow's.
    """
    uri = f"runs:/{run_id}/{model_name(plan, model)}"
    figures = [
        f"**Test accuracy {metrics['accuracy']:.3f}** ({metrics['test_examples']:,.0f} texts)",
        f"**inference {metrics['inference_ms']:.3g} ms** an example",
        f"**{metrics['parameters'] / 1e6:,.1f} million** parameters.",
    ]
    load = f'```python\nmlflow.pyfunc.load_model("{uri}").predict(["{EXAMPLE}"])\n```'
    return "\n\n".join([f"{_done(plan, model)} {_trained(plan, metrics)}", ", ".join(figures), load])


def _done(plan: RunPlan, model: PreTrainedModel) -> str:
    """Which network it is, and what it was made of."""
    name, what = plan.checkpoint.name, f"`{config_name(plan, model)}`"
    if plan.stage == "baseline":
        return f"{name} as it is,"
    if plan.stage == "transfer":
        return f"{name} ({what}), adapted:"
    if any(each.init == "random" for each in plan.reductions.values()):
        return f"{name} made smaller ({what}), with random weights as a control,"
    of = {"pretrained": "its pretrained encoder", "baseline": "the trained baseline", "checkpoint": "the checkpoint"}
    budget = f" to {plan.budget.budget}" if plan.budget else ""
    return f"{name} made smaller ({what}), cut from {of[plan.start]}{budget},"


def _trained(plan: RunPlan, metrics: Mapping[str, float]) -> str:
    """How it was trained, and on what."""
    settings = plan.fine_tuning
    if not settings.epochs:
        return "not trained again."
    epochs = f"{settings.epochs:g} epoch{'' if settings.epochs == 1 else 's'}"
    by = {"logits": "a teacher's logits", "hidden": "a teacher's logits and hidden states"}
    taught = f", taught by {by[plan.distillation.distill]}" if plan.distillation else ""
    return (
        f"fine-tuned on {metrics['train_examples']:,.0f} texts of {plan.corpus.name} ({epochs},"
        f" learning rate {settings.learning_rate:g}, seed {plan.seed}{taught})."
    )
