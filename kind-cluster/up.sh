#!/usr/bin/env bash
# Creates the cluster and installs its software; called again, it resumes where it stopped.
#   DATA=folder  the folder that steps see as /data, read-only
#   GPU=real     the machine's GPUs instead of a simulated one
#   STAGES       the images to load
set -Eeuo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
STAGES=${STAGES:-data cpu}
NO_ANSWER="The cluster $CLUSTER does not answer. Restart Docker and try again; or make cluster-down, which \
deletes it with its runs."

make_cluster() {
    local clusters
    clusters=$(kind get clusters)
    if grep -qx "$CLUSTER" <<<"$clusters"; then
        keep_choices
        start_nodes
        if is_whole; then
            remember_choices
            return
        fi
        say "An earlier start was stopped before the cluster was made; making it again."
        kind delete cluster --name "$CLUSTER"
    fi
    say "Making the cluster $CLUSTER"
    write_cluster_file
    rm -f "$MADE/made-with" # of a deleted cluster
    kind create cluster --config "$MADE/cluster.yaml" --wait 5m
    remember_choices
}

# The settings of an existing cluster cannot be changed.
keep_choices() {
    local gpu data
    [ -e "$MADE/made-with" ] || return 0
    { read -r gpu && read -r data; } <"$MADE/made-with"
    if [ "${GPU:-$gpu}" != "$gpu" ] || [ "${DATA:-$data}" != "$data" ]; then
        stop "The cluster was made with GPU=$gpu DATA=$data, which cannot be changed: make cluster-down" \
            "deletes it with its runs, then make cluster-up."
    fi
    GPU=$gpu DATA=$data
}

remember_choices() { printf '%s\n' "${GPU:-pretended}" "${DATA:-$MADE/data}" >"$MADE/made-with"; }

write_cluster_file() {
    local text data=${DATA:-$MADE/data}
    mkdir -p "$MADE/data" # without DATA, steps see files that are added here later
    data=${data//\\/\\\\}
    data=${data//\"/\\\"}
    text=$(cat "$HERE/cluster.yaml")
    shopt -u patsub_replacement 2>/dev/null || true # keeps a & in the folder's name literal
    text=${text//@DATA@/$data}
    if [ "${GPU:-}" = real ]; then text=${text//\# GPU=real: /}; fi
    printf '%s\n' "$text" >"$MADE/cluster.yaml"
}

# Nodes are stopped after a restart of the machine.
start_nodes() {
    local nodes
    nodes=$(kind get nodes --name "$CLUSTER")
    # shellcheck disable=SC2086  # one word per node
    "$DOCKER" start $nodes >/dev/null
}

# An interrupted start leaves nodes without a finished cluster: without credentials, or the last node has not
# joined. They can be deleted without losing anything. If the cluster may be finished, they are kept.
is_whole() {
    if ! kind export kubeconfig --name "$CLUSTER"; then
        [ -e "$MADE/made-with" ] || return 1
        stop "$NO_ANSWER"
    fi
    for _ in $(seq 60); do
        if kubectl get --raw /readyz >/dev/null 2>&1; then
            [ -e "$MADE/made-with" ] || kubectl get "node/$GPU_NODE" >/dev/null
            return
        fi
        sleep 2
    done
    stop "$NO_ANSWER"
}

offer_gpus() {
    kubectl wait --for=condition=Ready nodes --all --timeout=5m
    if [ "${GPU:-}" = real ]; then
        "$DOCKER" exec --interactive "$GPU_NODE" bash -s <"$HERE/gpu/install-toolkit.sh"
        kubectl apply -f "$HERE/gpu/device-plugin.yaml"
    else
        # The scheduler uses the node's status. A step that requests the GPU gets no device.
        local one='{"nvidia.com/gpu": "1"}'
        kubectl patch node "$GPU_NODE" --subresource=status --type=merge \
            --patch "{\"status\": {\"capacity\": $one, \"allocatable\": $one}}"
    fi
}

load_images() {
    local stage images=()
    for stage in $STAGES; do
        images+=("brain-tumor-$stage:$tag")
        "$DOCKER" image inspect "brain-tumor-$stage:$tag" >/dev/null 2>&1 ||
            stop "There is no image brain-tumor-$stage:$tag; make images STAGES=\"$STAGES\" builds it."
    done
    say "Loading ${images[*]}"
    kind load docker-image --name "$CLUSTER" "${images[@]}" # skips images that the nodes have
}

install_kubeflow() {
    say "Installing Kubeflow Pipelines"
    kubectl apply -k "$HERE/kubeflow/cluster-scoped"
    kubectl wait --for=condition=Established --timeout=2m \
        crd/applications.app.k8s.io crd/workflows.argoproj.io crd/scheduledworkflows.kubeflow.org
    kubectl apply -k "$HERE/kubeflow/pipelines"
}

install_ours() {
    local secret
    say "Installing MLflow, the data's volume and the Roboflow key"
    sed "s/@TAG@/$tag/" "$HERE/mlflow.yaml" | kubectl apply -f -
    kubectl apply -f "$HERE/data.yaml"
    secret=$("$PYTHON" "$HERE/roboflow_secret.py")
    if [ -n "$secret" ]; then
        # Server-side, since client-side apply keeps a copy of the key in an annotation.
        printf '%s\n' "$secret" | kubectl apply --server-side --force-conflicts -f -
    else
        say "There is no ROBOFLOW_API_KEY in the environment or .env, so dataset=roboflow will not work here."
    fi
}

wait_until_ready() {
    say "Waiting until all is ready; the first time, the nodes pull a dozen images"
    if ! kubectl -n "$NAMESPACE" wait deployment --all --for=condition=Available --timeout=20m; then
        kubectl -n "$NAMESPACE" get pods >&2
        stop "Not all is ready after 20 minutes, see above. make cluster-up waits on;" \
            "kubectl -n $NAMESPACE describe pod NAME says what a pod waits for."
    fi
}

case ${GPU:-} in
"" | pretended | real) ;;
*) stop "GPU=$GPU is not known; give GPU=real, or leave it out." ;;
esac
if [ -n "${DATA:-}" ]; then
    DATA=$(cd "$DATA" 2>/dev/null && pwd) || stop "DATA is not a folder that can be read; name one."
fi
mkdir -p "$MADE"
trap 'say "This stopped before all was ready; make cluster-up resumes from here."' ERR
cd "$ROOT"
tag=$("$PYTHON" -m pipelines.image)
make_cluster
offer_gpus
load_images
install_kubeflow
install_ours
wait_until_ready
say "The cluster is ready. make dashboard opens:"
print_addresses
