#!/usr/bin/env bash
# How far a study is, on Slurm or on this machine:  slurm/status.sh --preset paper --seeds 42,43,44
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -f ${CLUSTER_ENV:-slurm/cluster.env} ]]; then
    source slurm/settings.sh
    activate
fi
export MLFLOW_EXPERIMENT_NAME=${EXPERIMENT:-encoder-reduction}
exec python entry_points/status.py "$@"
