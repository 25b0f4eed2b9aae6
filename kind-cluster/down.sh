#!/usr/bin/env bash
# Deletes the cluster with everything in it. build/kind-cluster/data is kept, since it has the user's files.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

if process=$(dashboard_process); then kill "$process"; fi
kind delete cluster --name "$CLUSTER" ||
    stop "The cluster could not be deleted; make doctor says what is missing."
rm -f "$MADE/cluster.yaml" "$MADE/made-with" "$MADE/dashboard.pid"
