#!/usr/bin/env bash
# Submits what is missing of a whole study, as job arrays that depend on each other:
#
#   slurm/submit_study.sh --preset paper --seeds 42,43,44 [--throttle 4] [--dry-run]
#
# Any value of the preset can be given as well (--epochs 2). The same command again submits what is missing by then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source slurm/settings.sh
activate

words=()
for word in "$@"; do
    if [[ $word == --dry-run ]]; then words+=(--dry_run=true); else words+=("$word"); fi
done
export MLFLOW_EXPERIMENT_NAME=$EXPERIMENT
exec python entry_points/study.py --launcher=slurm "${words[@]}"
