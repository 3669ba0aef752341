# shellcheck shell=bash
# Sourced by every wrapper, within its job, in the repository's root: `run` is `mlflow run` that outlives the job.
source slurm/settings.sh
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} # not as many threads as the node has cores
activate || complain "activate of $CLUSTER_ENV failed on ${SLURMD_NODENAME-this node}."

# run ENTRY [-P name=value]...
#
# Before the time limit Slurm sends USR1: the entry point is told to stop, writes a checkpoint, and the job requeues
# itself. A job that was requeued, by this or by Slurm, goes on with the same MLflow run. So does one whose Python was
# killed without a word in mid-run (for want of memory, say), as often as MAX_REQUEUES allows.
run() {
    local entry=$1 job=$SLURM_JOB_ID state group asked="" resume=()
    shift
    [[ -z ${SLURM_ARRAY_JOB_ID-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    mkdir -p logs/slurm/state # which submit.sh has made, and a bare sbatch has not
    state=$PWD/logs/slurm/state/$job
    # The entry point writes its MLflow run to .run and how it ended to .end.
    export ENCODER_REDUCTION_STATE=$state ENCODER_REDUCTION_LOG=logs/slurm/$SLURM_JOB_NAME-$job.log
    [[ ! -s $state.run ]] || resume=(--run-id "$(<"$state.run")")
    rm -f "$state.end"
    echo "Job $job on ${SLURMD_NODENAME-}, start $((${SLURM_RESTART_COUNT:-0} + 1)): mlflow run -e $entry $* ${resume[*]}"
    prepare_store

    set -m # `mlflow run` and all that it starts are one process group
    mlflow run . -e "$entry" --env-manager local --experiment-name "$EXPERIMENT" "$@" "${resume[@]}" &
    group=$!
    set +m
    trap 'echo "Job is near its time limit."; asked=${asked:-limit}; stop_entry_point "$group"' USR1
    trap 'echo "Job is told to end."; asked=slurm; stop_entry_point "$group"' TERM
    # A trap ends `wait`; and mlflow may be gone before the entry point is.
    while pgrep --pgroup "$group" >/dev/null; do
        wait "$group" 2>/dev/null || sleep 0.2
        # Again, for an entry point that had not started when the signal came.
        [[ -z $asked ]] || stop_entry_point "$group"
    done

    local end
    end=$(cat "$state.end" 2>/dev/null || echo killed)
    if [[ $end == finished ]]; then
        rm -f "$state".*
    elif [[ $end == failed ]]; then
        return 1
    elif [[ $asked == limit ]]; then
        requeue "shortly before its time limit"
    elif [[ -z $asked && -s $state.run && ${SLURM_RESTART_COUNT:-0} -lt $MAX_REQUEUES ]]; then
        requeue "since its process was killed"
    else
        return 1 # stopped by Slurm, which requeues it if it was asked to
    fi
}

# Only the entry point: mlflow would die of it, and leave the entry point behind.
stop_entry_point() {
    pkill -TERM --pgroup "$1" --full 'entry_points/' || true
}

requeue() {
    echo "Job requeues itself $1."
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # until Slurm ends this script
}

# A new store and its experiment are made by one job alone: of six at once, five died in the schema's migration.
prepare_store() {
    local ready
    ready=logs/slurm/state/store-$(printf '%s %s' "$MLFLOW_TRACKING_URI" "$EXPERIMENT" | sha256sum | cut -c1-16)
    (
        flock 9
        [[ -e $ready ]] && exit
        mlflow experiments create --experiment-name "$EXPERIMENT" >/dev/null 2>&1 || true
        touch "$ready"
    ) 9>"$ready.lock"
}
