#!/usr/bin/env bash
# The tracking server of cluster.env (make server); its address goes to logs/slurm/server.url.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source slurm/settings.sh
activate

host=$SERVER_HOST
[[ $host != 0.0.0.0 ]] || host=$(hostname -f)
mkdir -p logs/slurm "$SERVER_ARTIFACTS"
echo "http://$host:$SERVER_PORT" >logs/slurm/server.url
echo "Tracking server at http://$host:$SERVER_PORT (runs in ${SERVER_STORE/:\/\/*@/://...@}, files in $SERVER_ARTIFACTS)"
# A runner of evaluations that nobody here starts would take a process and its memory.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false}
# A request may hold one connection while it waits for another: with MLflow's 15, sixteen clients at once lock each
# other out of SQLite for half a minute. 80 are two for each of a worker's threads; PostgreSQL has 100 for all workers.
connections=75
[[ $SERVER_STORE == sqlite:* ]] || connections=15
export MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW=${MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW:-$connections}
# MLflow refuses requests, a browser's too, that call the node by a name it was not told.
names=("$(hostname -f)" "$(hostname -s)" localhost 127.0.0.1)
hosts=$(printf '%s:*,' "${names[@]}")
origins=$(printf "http://%s:$SERVER_PORT," "${names[@]}")
export MLFLOW_SERVER_ALLOWED_HOSTS=${MLFLOW_SERVER_ALLOWED_HOSTS:-${hosts%,}}
export MLFLOW_SERVER_CORS_ALLOWED_ORIGINS=${MLFLOW_SERVER_CORS_ALLOWED_ORIGINS:-${origins%,}}
mlflow db upgrade "$SERVER_STORE" # before its workers start at once
exec mlflow server --backend-store-uri "$SERVER_STORE" --artifacts-destination "$SERVER_ARTIFACTS" \
    --host "$SERVER_HOST" --port "$SERVER_PORT" "${SERVER_OPTIONS[@]}"
