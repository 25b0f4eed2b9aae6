# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are used by the scripts that source this file
# Shared by the scripts in this folder.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
MADE=$ROOT/build/kind-cluster # their state
CLUSTER=brain-tumor
NAMESPACE=kubeflow
GPU_NODE=$CLUSTER-worker
DOCKER=${DOCKER:-docker}

# Local port, service, its port, description.
FORWARDED='8080 ml-pipeline-ui 80 Kubeflow dashboard
8888 ml-pipeline 8888 Kubeflow Pipelines API
5001 mlflow 5000 MLflow
9000 seaweedfs 9000 Object store (S3)'

# Always uses this cluster, independent of the user's current context.
kubectl() { command kubectl --context "kind-$CLUSTER" "$@"; }

say() { printf '%s\n' "$*" >&2; }

stop() {
    say "$*"
    exit 2
}

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The process of `make dashboard`, if it is running; a stored process id may belong to another process by now.
dashboard_process() {
    local process
    process=$(cat "$MADE/dashboard.pid" 2>/dev/null) || return 1
    [[ $(ps -p "$process" -o args= 2>/dev/null) == *dashboard.sh* ]] && echo "$process"
}

print_addresses() {
    local port name
    while read -r port _ _ name; do
        printf '%-24s http://127.0.0.1:%s\n' "$name" "$port"
    done <<<"$FORWARDED"
}
