"""What every way of cutting is worth, before and after training: three seeds, one table.

Runs on the packaged model with 3,000 training snippets and 2 epochs; accuracy is of the whole test
split. Rows that start from the baseline cut the one that was fine-tuned with the same seed, which the benchmark keeps
in a folder beside the results. Results are appended to a file as they come, so an interrupted benchmark continues.
About three hours on 2 cores:

    python benchmarks/reductions.py
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402
from transformers import PreTrainedTokenizerBase as Tokenizer  # noqa: E402

import kwon  # noqa: E402
from encoder_reduction.data import calibration, corpora  # noqa: E402
from encoder_reduction.data.tokenisation import tokenise  # noqa: E402
from encoder_reduction.models import checkpoints  # noqa: E402
from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.plan.sections import RunPlan  # noqa: E402
from encoder_reduction.profiling.inference import flops_of  # noqa: E402
from encoder_reduction.reductions import Cut  # noqa: E402
from encoder_reduction.runs.run import reduce  # noqa: E402
from encoder_reduction.runs.teaching import teach  # noqa: E402
from encoder_reduction.training.fine_tuning import FineTuner  # noqa: E402
from encoder_reduction.training.pieces import Pieces  # noqa: E402

EXAMPLES, EPOCHS, LEARNING_RATE = 3000, 2, 1e-4
# Texts that the cuts of a trained network look at, those of Kwon et al. among them.
CALIBRATION = 512


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        dim: what is cut, as after ``-P dim=``; ``None`` for the full model.
        cut: overrides of the packaged preset's reductions, by dimension; ``every`` for all of them.
        start: ``pretrained`` or ``baseline``.
        distill: ``none``, ``logits`` or ``hidden``.
        epochs: of training after the cut; 0 for none.
    """

    dim: str | None = None
    cut: dict[str, dict[str, Any]] = field(default_factory=dict)
    start: str = "pretrained"
    distill: str = "none"
    epochs: int = EPOCHS


def _every(**values: Any) -> dict[str, dict[str, Any]]:
    return {"every": values}


def _both(heads: int, units: int) -> dict[str, dict[str, Any]]:
    return {"heads": {"size": heads, "spread": "global"}, "intermediate": {"size": units, "spread": "global"}}


# A half and a third of the encoder's multiply-accumulates at 32 tokens.
HALF, THIRD = _both(6, 768), _both(5, 448)
CUTS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "heads 6": ("heads", {}),
    "half of the FLOPs": ("heads+intermediate", HALF),
    "a third of the FLOPs": ("heads+intermediate", THIRD),
    "layers 3": ("layers", {}),
    "hidden 192": ("hidden", {}),
}
VARIANTS: dict[str, Variant] = {
    "full model": Variant(),
    "heads 6, regrouped": Variant("heads", _every(strategy="regroup")),
    "heads 6, pruned by gradient": Variant("heads", _every(correct="none")),
    "heads 6, pruned by gradient, corrected": Variant("heads"),
    "heads 6, pruned at random": Variant("heads", _every(criterion="random", correct="none")),
    "heads 6, pruned at random, corrected": Variant("heads", _every(criterion="random")),
    "heads 6, random weights": Variant("heads", _every(init="random")),
    "hidden 192, channels by activation": Variant("hidden", _every(strategy="slice", correct="none")),
    "hidden 192, channels by activation, corrected": Variant("hidden", _every(strategy="slice")),
    "hidden 192, principal components, corrected": Variant("hidden"),
    "hidden 192, Torch-Pruning 1.6.1 by magnitude": Variant("hidden"),
    "hidden 192, random weights": Variant("hidden", _every(init="random")),
    "layers 3, alternate": Variant("layers"),
    "layers 3, alternate, corrected": Variant("layers", _every(correct="least_squares")),
    "layers 3, influence": Variant("layers", _every(strategy="influence")),
    "layers 3, random weights": Variant("layers", _every(init="random")),
    **{f"{name}, from the baseline, not trained": Variant(*cut, start="baseline", epochs=0)
       for name, cut in CUTS.items()},
    "layers 3, uncorrected, from the baseline, not trained":
        Variant("layers", _every(correct="none"), "baseline", epochs=0),
    "hidden 192, channels, from the baseline, not trained":
        Variant("hidden", _every(strategy="slice"), "baseline", epochs=0),
    "hidden 192, channels, from the baseline, taught by hidden states":
        Variant("hidden", _every(strategy="slice"), "baseline", "hidden"),
    **{f"layers 3, uncorrected, from the baseline, taught by {how}":
       Variant("layers", _every(correct="none"), "baseline", distill)
       for how, distill in (("hidden states", "hidden"), ("logits", "logits"))},
    "half of the FLOPs, Kwon et al. 2022, not trained": Variant("heads+intermediate", HALF, "baseline", epochs=0),
    "a third of the FLOPs, Kwon et al. 2022, not trained": Variant("heads+intermediate", THIRD, "baseline", epochs=0),
    **{f"{name}, from the baseline, taught by hidden states": Variant(*cut, "baseline", "hidden")
       for name, cut in CUTS.items()},
    **{f"{name}, from the baseline, taught by logits": Variant(*cut, "baseline", "logits")
       for name, cut in CUTS.items()},
    **{f"{name}, from the baseline, labels only": Variant(*cut, "baseline") for name, cut in CUTS.items()},
    # What a reviewer asks for: the pretrained network cut, with the baseline's epochs on top.
    **{f"{name}, from pretrained, 4 epochs": Variant(*cut, epochs=2 * EPOCHS) for name, cut in CUTS.items()},
}  # fmt: skip


def torch_pruning(model: PreTrainedModel) -> PreTrainedModel:
    """BERT at half its width by Torch-Pruning's magnitude importance, heads kept and narrowed.

    Torch-Pruning leaves the configuration as it was, so the attention is told its new head size.
    """
    import torch_pruning as tp

    attentions = [layer.attention.self for layer in model.bert.encoder.layer]
    heads = {linear: attention.num_attention_heads for attention in attentions for linear in
             (attention.query, attention.key, attention.value)}  # fmt: skip
    tokens = torch.randint(1000, 2000, (2, 16))
    pruner = tp.pruner.MetaPruner(
        model,
        {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)},
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        num_heads=heads,
        prune_head_dims=True,
        ignored_layers=[model.classifier],
        output_transform=lambda output: output.logits.sum(),
    )
    pruner.step()
    for attention in attentions:
        attention.attention_head_size = attention.query.out_features // attention.num_attention_heads
        attention.all_head_size = attention.query.out_features
        attention.scaling = attention.attention_head_size**-0.5
    return model


def plan_of(variant: Variant, seed: int) -> RunPlan:
    """The run that a row stands for."""
    values = {"seed": seed, "epochs": EPOCHS, "max_train_examples": EXAMPLES, "learning_rate": LEARNING_RATE}
    values |= {"max_validation_examples": 10**6, "max_test_examples": 10**6}
    preset, _ = presets.load("packaged")
    if variant.dim is None:
        return preset.plan("baseline", "bert", overrides=values)
    values |= {"start": variant.start, "distill": variant.distill}
    values |= {"calibration_examples": CALIBRATION} if variant.start == "baseline" else {}
    plan = preset.plan(
        "reduce", "bert", variant.dim, values | {"epochs": variant.epochs} | variant.cut.get("every", {})
    )
    cuts = {dim: cut.model_copy(update=variant.cut.get(dim, {})) for dim, cut in plan.reductions.items()}
    return plan.model_copy(update={"reductions": cuts})


def baseline(seed: int, folder: Path) -> Path:
    """The folder of the fine-tuned full model of a seed, which is made where it is not there."""
    kept = folder / f"baseline-{seed}"
    if not kept.exists():
        model, tokenizer, _ = _trained("full model", seed, folder)
        for part in (model, tokenizer):
            part.save_pretrained(kept)
    return kept


def _trained(row: str, seed: int, folder: Path) -> tuple[PreTrainedModel, Tokenizer, dict[str, object]]:
    variant = VARIANTS[row]
    plan = plan_of(variant, seed)
    data = corpora.draw_splits(plan)
    if variant.start == "baseline":
        model, tokenizer = checkpoints.load_folder(baseline(seed, folder))
    else:
        model, tokenizer = checkpoints.load(plan.checkpoint, seed)
    tokenised = {split: tokenise(data[split], tokenizer, plan.fine_tuning.max_length) for split in corpora.SPLITS}
    started = time.perf_counter()
    if "Torch-Pruning" in row:
        cut = Cut(torch_pruning(model), [])
    elif "Kwon" in row:
        texts = calibration.batches(tokenised["train"], tokenizer, CALIBRATION, seed, model.device)
        cut = Cut(kwon.prune(model, texts, plan.reductions["heads"].size, plan.reductions["intermediate"].size), [])
    else:
        cut = reduce(plan, model, tokenizer, tokenised["train"])
    seconds, train, teacher = time.perf_counter() - started, tokenised["train"], None
    if plan.distillation:
        train, teacher = teach(plan, None, model, cut, tokenizer, train, data["train"])
    tuner = FineTuner(
        cut.model, tokenizer, plan.fine_tuning, seed, lambda values, step: None, False, plan.distillation, teacher
    )
    with tempfile.TemporaryDirectory() as pieces:
        training = tuner.train(train, tokenised["validation"], Pieces(Path(pieces)))
    return cut.model, tokenizer, {
        "row": row,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in cut.model.parameters()),
        "flops": flops_of(cut.model).forward(32),
        "reduction_seconds": seconds,
        "validation_accuracy": training.validation_accuracy,
        "accuracy": tuner.evaluate(tokenised["test"], data["test"]["id"]).accuracy,
    }  # fmt: skip


def measure(row: str, seed: int, folder: Path) -> dict[str, object]:
    """Fine-tune one variant and score it."""
    return _trained(row, seed, folder)[2]


def table(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, in the order of the variants."""
    grouped = results.groupby("row").agg(
        parameters=("parameters", "first"),
        flops=("flops", "first"),
        seeds=("seed", "nunique"),
        validation=("validation_accuracy", "mean"),
        test=("accuracy", "mean"),
        std=("accuracy", "std"),
        seconds=("reduction_seconds", "median"),
    )
    grouped = grouped.loc[[row for row in VARIANTS if row in grouped.index]].reset_index()
    return pd.DataFrame(
        {
            "Variant": grouped["row"],
            "Parameters (M)": (grouped["parameters"] / 1e6).map("{:.1f}".format),
            "FLOPs, 32 tokens (G)": (grouped["flops"] / 1e9).map("{:.2f}".format),
            "Seeds": grouped["seeds"].map(str),
            "Validation accuracy": grouped["validation"].map("{:.3f}".format),
            "Test accuracy": grouped["test"].map("{:.3f}".format),
            "Standard deviation": grouped["std"].map("{:.3f}".format),
            "Time to reduce (s)": grouped["seconds"].map("{:.1f}".format),
        }
    )


@click.command(help=__doc__)
@click.option("--seeds", default="42,43,44", show_default=True)
@click.option("--only", default="", help="Only the variants whose name contains this.")
@click.option("--results", type=Path, default=ROOT / "benchmarks" / "reductions.jsonl", show_default=True)
def main(seeds: str, only: str, results: Path) -> None:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    done = [json.loads(line) for line in lines]
    finished = {(entry["row"], entry["seed"]) for entry in done}
    for seed in map(int, seeds.split(",")):
        for row in VARIANTS:
            if only in row and (row, seed) not in finished:
                done.append(measure(row, seed, results.parent))
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[-1]) + "\n")
                click.echo(f"{row}, seed {seed}: {done[-1]['accuracy']:.3f}", err=True)
    click.echo(table(pd.DataFrame(done)).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
