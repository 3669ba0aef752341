#!/usr/bin/env bash
# Submits one entry point to Slurm with the settings of slurm/cluster.env:
#
#   slurm/submit.sh reduce -P model=roberta -P dim=hidden -P preset=paper
#
# Options before the entry point go to sbatch, such as --dependency=afterok:12; --dry-run prints the command instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source slurm/settings.sh

dry_run=false
options=()
while [[ ${1-} == --* ]]; do
    if [[ $1 == --dry-run ]]; then dry_run=true; else options+=("$1"); fi
    shift
done

wrappers=(slurm/*.sbatch)
names=("${wrappers[@]##*/}")
names=("${names[@]%.sbatch}")
name=${1-}
[[ $name =~ ^[a-z]+$ && -f slurm/$name.sbatch ]] || complain "'$name' cannot be submitted; choose one of: ${names[*]}."
shift

case $name in
    baseline | reduce | compress | transfer | profile | task)
        resources=("--gres=$GRES" "--cpus-per-task=$CPUS" "--mem=$MEMORY" "--time=$TIME")
        partition=$PARTITION
        ;;
    *)
        resources=("--cpus-per-task=$CPU_CPUS" "--mem=$CPU_MEMORY" "--time=$CPU_TIME")
        partition=${CPU_PARTITION:-$PARTITION}
        ;;
esac
[[ -z $partition ]] || resources+=("--partition=$partition")
[[ -z $ACCOUNT ]] || resources+=("--account=$ACCOUNT")

# %N limits an array where it does not do so itself.
for index in "${!options[@]}"; do
    [[ ${options[index]} != --array=* || ${options[index]} == *%* ]] || options[index]+="%$MAX_JOBS"
done

# A job that was asked to requeue starts with the same number and appends to the same log.
log=%j
[[ ${options[*]} != *--array=* ]] || log=%A_%a
command=(sbatch "--job-name=$name" "${resources[@]}" --requeue --open-mode=append
    "--signal=B:USR1@$WARN_SECONDS" "--output=logs/slurm/$name-$log.log" "${options[@]}" "slurm/$name.sbatch" "$@")
if $dry_run; then
    printf '%q ' "${command[@]}"
    echo
    exit
fi
mkdir -p logs/slurm/state
# What `mlflow run` or a study has told this process about its own run is not for the job.
unset MLFLOW_RUN_ID MLFLOW_EXPERIMENT_ID MLFLOW_EXPERIMENT_NAME
exec "${command[@]}"
