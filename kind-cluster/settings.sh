# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
# What the scripts of this folder share.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
MADE=$ROOT/build/kind-cluster # what they keep
CLUSTER=brain-tumor
NAMESPACE=kubeflow
GPU_NODE=$CLUSTER-worker
DOCKER=${DOCKER:-docker}

# Port of this machine, service, its port, what it is.
FORWARDED='8080 ml-pipeline-ui 80 Kubeflow dashboard
8888 ml-pipeline 8888 Kubeflow Pipelines API
5001 mlflow 5000 MLflow
9000 seaweedfs 9000 Object store (S3)'

# Whatever cluster the user works with otherwise, this is for ours.
kubectl() { command kubectl --context "kind-$CLUSTER" "$@"; }

say() { printf '%s\n' "$*" >&2; }

stop() {
    say "$*"
    exit 2
}

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The process of `make dashboard`, if it runs; a number that it left may be another's by now.
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
