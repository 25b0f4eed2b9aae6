#!/usr/bin/env bash
# Forwards the cluster's services to ports of this machine until it is interrupted.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

# Runs in the background; opens the port again whenever the connection is lost, as when a pod is replaced.
forward() {
    local child=
    trap 'kill "$child" 2>/dev/null; exit 0' TERM
    while true; do
        command kubectl --context "kind-$CLUSTER" -n "$NAMESPACE" \
            port-forward "service/$2" "$1:$3" >/dev/null &
        child=$!
        wait "$child" || say "The connection to $2 was lost; opening it again."
        sleep 2
    done
}

if process=$(dashboard_process); then
    say "The process $process already forwards them:"
    print_addresses
    exit 0
fi
kubectl get namespace "$NAMESPACE" >/dev/null ||
    stop "There is no cluster that answers; make cluster-up makes it."
while read -r port _ _ name; do
    ! is_taken "$port" || stop "Port $port is taken by another program; end it, since $name needs the port."
done <<<"$FORWARDED"

mkdir -p "$MADE"
echo $$ >"$MADE/dashboard.pid"
children=()
trap 'kill "${children[@]-}" 2>/dev/null; rm -f "$MADE/dashboard.pid"' EXIT
trap 'exit 0' INT TERM
while read -r port service target _; do
    forward "$port" "$service" "$target" &
    children+=($!)
done <<<"$FORWARDED"
print_addresses
say "Ctrl-C ends this."
wait
