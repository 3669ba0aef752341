# shellcheck shell=bash
# Sourced in the repository's root by everything in slurm/: the settings of cluster.env, exported.

complain() {
    echo "Error: $*" >&2
    exit 1
}

CLUSTER_ENV=${CLUSTER_ENV:-slurm/cluster.env}
[[ -f $CLUSTER_ENV ]] || complain "$CLUSTER_ENV does not exist: cp slurm/cluster.env.example slurm/cluster.env, and edit it."
set -a
# An editor of Windows may have ended its lines in its own way.
# shellcheck source=slurm/cluster.env.example
source <(tr -d '\r' < "$CLUSTER_ENV")
set +a
# Empty would be a folder's name to these.
for name in ENCODER_REDUCTION_CACHE HF_HOME; do
    [[ -n ${!name} ]] || unset "$name"
done
