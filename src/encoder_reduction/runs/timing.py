"""How long networks of other dimensions take on this device, beside the whole one; each is measured once."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import torch
from filelock import FileLock
from transformers import PreTrainedModel

from ..data import cache
from ..models.architectures import Sizes, sizes_of, with_sizes
from ..plan.precision import resolve_precision
from ..plan.sections import Profiling
from ..profiling.inference import Batch, Workload, for_inference
from ..profiling.latency import Call, Ratio, measure_interleaved
from ..profiling.machine import device_name, watched
from ..tracking import fingerprints

_LOGGER = logging.getLogger(__name__)

# As many are measured in turn with the whole network, so that memory holds them.
_TOGETHER = 6
# What is decided by one time alone is measured for so many times as long, until its interval is as narrow as this.
_LONGER, _NARROW = 6, 0.02


class Timings:
    """Inference times in units of the whole network's, measured in turn with it, weights drawn at random.

    What was measured on a quiet machine is kept in the cache, by device, libraries, precision, network and workload. It
    is not measured again, so that what is decided by it is decided alike another time.

    Args:
        whole: the network that others are like but for their dimensions; it is left as it is.
        workload: what is timed.
        precision: of the weights.
        settings: how long and how sure.
    """

    def __init__(self, whole: PreTrainedModel, workload: Workload, precision: str, settings: Profiling) -> None:
        self.full = sizes_of(whole)
        self._whole, self._workload, self._precision, self._settings = whole, workload, precision, settings
        self._file = cache.directory() / "latency" / f"{self._key()}.json"
        self._known = self._kept()

    def of(self, architectures: Sequence[Sizes]) -> list[float]:
        """The time of each architecture; those that are not known yet are measured, a few at once."""
        unknown = [sizes for sizes in dict.fromkeys(architectures) if _named(sizes) not in self._known]
        for start in range(0, len(unknown), _TOGETHER):
            together = unknown[start : start + _TOGETHER]
            self._learn(dict(zip(map(_named, together), together, strict=True)), self._settings)
        return [self._known[_named(sizes)] for sizes in architectures]

    def surely(self, sizes: Sizes) -> float:
        """The time of one architecture, measured until it is known well."""
        name = f"surely {_named(sizes)}"
        if name not in self._known:
            self._learn({name: sizes}, longer(self._settings))
        return self._known[name]

    def _learn(self, architectures: dict[str, Sizes], settings: Profiling) -> None:
        """Measure, and keep for others what was measured on a quiet machine."""
        networks = [self._network(sizes) for sizes in (self.full, *architectures.values())]
        calls = [[partial(_forward, network, batch) for batch in self._workload.batches] for network in networks]
        with watched(self._whole.device) as machine:
            ratios = in_turn(calls, self._whole.device, settings)[1:]
        found = {name: 1 / ratio.median for name, ratio in zip(architectures, ratios, strict=True)}
        if warnings := machine.warnings():
            _LOGGER.warning("While inference times were measured, %s: they are not kept.", "; ".join(warnings))
            self._known |= found
        else:
            self._keep(found)

    def _network(self, sizes: Sizes) -> PreTrainedModel:
        network, draw = with_sizes(self._whole, sizes), torch.Generator(self._whole.device).manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=0.02, generator=draw)
        return for_inference(network, self._precision)

    def _keep(self, found: dict[str, float]) -> None:
        """Add to what is known, by whomever: of two that measured the same, the first counts."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._file.with_suffix(".lock")):
            self._known = self._known | found | self._kept()
            partial_file = self._file.with_suffix(".partial")
            partial_file.write_text(json.dumps(self._known, indent=1))
            partial_file.replace(self._file)

    def _kept(self) -> dict[str, float]:
        return json.loads(self._file.read_text()) if self._file.is_file() else {}

    def _key(self) -> str:
        content = {
            "device": device_name(),
            "libraries": fingerprints.libraries(),
            "precision": resolve_precision(self._precision),
            "network": [self._whole.config.model_type, _named(self.full), self._whole.config.vocab_size],
            "workload": [[shape.examples, shape.padded, shape.tokens] for shape in self._workload.shapes],
            "settings": self._settings.model_dump(include={"relative_width", "min_repetitions", "time_budget"}),
            "measuring": "a fifth of the time at least",
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def longer(settings: Profiling) -> Profiling:
    """The settings of a measurement that decides alone."""
    width = min(settings.relative_width, _NARROW)
    return settings.model_copy(update={"relative_width": width, "time_budget": _LONGER * settings.time_budget})


def in_turn(contenders: Sequence[Sequence[Call]], device: torch.device, settings: Profiling) -> list[Ratio]:
    """How many times as fast as the first each is, as sure as the settings ask."""
    return measure_interleaved(
        contenders,
        device=device,
        relative_width=settings.relative_width,
        min_repetitions=settings.min_repetitions,
        time_budget=settings.time_budget * len(contenders),
    )


def _forward(network: PreTrainedModel, batch: Batch) -> None:
    with torch.inference_mode():
        network(**batch)


def _named(sizes: Sizes) -> str:
    """All that an architecture is, in one line."""
    return json.dumps({name: value for name, value in asdict(sizes).items() if name not in ("heads", "intermediate")})
