"""The models of finished runs in each runtime: what is measured in turn, and what each predicts."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..deployment import export
from ..deployment.quantisation import quantise
from ..deployment.session import Session
from ..plan.precision import resolve_precision
from ..plan.runtimes import ONNX, ONNX_INT8, TORCH
from ..profiling.inference import TEXTS, Batch, Profiler, Workload
from ..profiling.latency import Call
from ..profiling.machine import device_name
from ..training.evaluation import Evaluation, evaluation

# What a runtime computes in; PyTorch in what the plan says.
_PRECISIONS = {ONNX: "fp32", ONNX_INT8: "int8"}


@dataclass(frozen=True)
class Runnable:
    """A model as one runtime has it.

    Attributes:
        runtime: of :data:`.plan.runtimes.Runtime`.
        megabytes: 1e6 bytes of the file that holds its weights.
        session: ONNX Runtime's; none of PyTorch.
    """

    runtime: str
    megabytes: float
    session: Session | None = None


@dataclass(frozen=True)
class Contender:
    """One finished run's model in one runtime.

    Attributes:
        run: the run, as :func:`.store.finished_run` has it.
        model: as the runtime has it.
        profiler: of the run's model in PyTorch.
        workloads: by name and batch size; of one run, the same in every runtime.
    """

    run: Mapping[str, Any]
    model: Runnable
    profiler: Profiler
    workloads: Mapping[tuple[str, int], Workload]

    @property
    def precision(self) -> str:
        """The number format that it computes in."""
        return _PRECISIONS.get(self.model.runtime) or resolve_precision(self.profiler.fine_tuning.precision)

    def named(self, first: "Contender") -> dict[str, Any]:
        """The columns that say whose row it is; ``first`` is what all are measured against."""
        own = {name: self.run[name] for name in ("name", "model", "config")}
        return {"run_id": self.run["run_id"], "reference": first.run["run_id"], **own}

    def calls(self, workload: Workload) -> list[Call]:
        """One call of the forward pass for each batch."""
        session = self.model.session
        if session is None:
            return self.profiler.calls(workload)
        return [partial(session.run, session.fed(batch)) for batch in workload.batches]

    def evaluate(self, tokenised: Dataset, ids: list[str]) -> Evaluation:
        """Score a tokenised split, in its order and in batches of the plan's size, as it is timed."""
        settings = self.profiler.settings.model_copy(update={"test_texts": len(tokenised)})
        whole = dataclasses.replace(self.profiler, settings=settings)
        batches = whole.texts(tokenised, self.profiler.fine_tuning.batch_size)
        logits = np.concatenate([_logits(call()) for call in self.calls(batches)])
        return evaluation(ids, logits, np.asarray(tokenised["labels"]), tokenised["length"])


def in_each_runtime(
    model: PreTrainedModel,
    weights: Path,
    runtimes: Sequence[str],
    texts: Sequence[Batch],
    folder: Path,
    device: torch.device,
) -> list[Runnable]:
    """A model for each runtime.

    Args:
        model: in float32 on the CPU, as it is exported.
        weights: its folder.
        runtimes: their names.
        texts: batches that the exported file is checked on.
        folder: where files may be written.
        device: what ONNX Runtime computes on, too, where it can.

    Raises:
        UserError: a library is not installed, or an exported file is not what PyTorch computes.
    """
    found = [Runnable(TORCH, sum(_megabytes(file) for file in weights.glob("model*.safetensors")))]
    files = {ONNX: folder / "model.onnx", ONNX_INT8: folder / "int8.onnx"}
    if set(runtimes) & set(files):
        export.export(model, files[ONNX])
        export.check(files[ONNX], model, texts)
    if ONNX_INT8 in runtimes:
        quantise(files[ONNX], files[ONNX_INT8])
    for runtime, file in files.items():
        if runtime in runtimes:
            found.append(Runnable(runtime, _megabytes(file), Session(file, device)))
    return found


def as_table(contenders: Sequence[Contender], ratios: pd.DataFrame, evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """One row a contender: what it is, what it scores on test, how fast it is on texts.

    Speeds are in the plan's batches, and as ``single_...`` of one text at a time.

    Args:
        contenders: in order; the first is the reference.
        ratios: of :func:`.paired.execute`.
        evaluations: of the contenders, on the test split.
    """
    first = contenders[0]
    texts = ratios[ratios["workload"].eq(TEXTS)].set_index(["run_id", "runtime"])
    speeds, singles = (
        texts.loc[texts["batch_size"].eq(size), ["speed_ratio", "low", "high"]]
        for size in (first.profiler.fine_tuning.batch_size, 1)
    )
    speeds = speeds.join(singles.add_prefix("single_"))
    return pd.DataFrame(
        [
            {
                **each.named(first),
                "runtime": each.model.runtime,
                "precision": each.precision,
                "device": device_name(),
                **speeds.loc[(each.run["run_id"], each.model.runtime)].to_dict(),
                "accuracy": scored.accuracy,
                "f1": scored.f1,
                "examples": len(scored.predictions),
                "megabytes": each.model.megabytes,
            }
            for each, scored in zip(contenders, evaluations, strict=True)
        ]
    )


def _logits(output: Any) -> np.ndarray:
    """Of either runtime's output, as float32."""
    return output if isinstance(output, np.ndarray) else output.logits.float().cpu().numpy()


def _megabytes(file: Path) -> float:
    return file.stat().st_size / 1e6
