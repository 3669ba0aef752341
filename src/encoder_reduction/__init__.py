"""Which part of an encoder can be cut, what does it cost, and what does it save?"""

import os

from .data import cache

# Libraries read these when they are imported; a user's own setting wins. No chatter and no telemetry. What transformers
# warns of while it reads a user's files is said all the same, by models/checkpoints.py; datasets is heard throughout.
_QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "critical",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
# HF_HOME may be read-only, shared by many: what these make of what lies there is kept with what we make.
_OURS = {
    "HF_DATASETS_CACHE": str(cache.directory() / "datasets"),
    "HF_METRICS_CACHE": str(cache.directory() / "metrics"),
}
# Whether there are GPUs is asked of their driver: asking CUDA would start it, and a run could not choose one any more.
_ASKING = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
for _name, _value in (_QUIET | _OURS | _ASKING).items():
    os.environ.setdefault(_name, _value)
