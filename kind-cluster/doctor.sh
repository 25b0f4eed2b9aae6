#!/usr/bin/env bash
# Checks what this machine has for the cluster, one line per check; exit code 2 if something is missing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

lacking=0

good() { printf 'ok       %-18s %s\n' "$1" "$2"; }

lacks() {
    printf 'MISSING  %-18s %s\n' "$1" "$2"
    lacking=2
}

# Name, present value, required minimum (numbers, or versions such as 1.30), advice.
at_least() {
    local lower
    lower=$(printf '%s\n%s\n' "$2" "$3" | sort -V | head -n 1)
    if [ "$lower" = "$3" ]; then good "$1" "$2"; else lacks "$1" "$2, and $3 is needed: $4"; fi
}

check_docker() {
    local format described version memory cores cgroup advice
    if ! command -v "$DOCKER" >/dev/null; then
        lacks docker "install it: https://docs.docker.com/engine/install"
        return
    fi
    format='{{.ServerVersion}} {{.MemTotal}} {{.NCPU}} {{.CgroupVersion}}'
    if ! described=$("$DOCKER" info --format "$format" 2>/dev/null); then
        lacks docker "it does not answer; start it, and let this user use it (docker info says why)"
        return
    fi
    read -r version memory cores cgroup <<<"$described"
    good docker "$version"
    advice="give Docker more (Docker Desktop: Settings, Resources), or use a larger machine"
    # On a machine with 12 GB Docker has a little less.
    at_least "memory, GB" "$((memory / 1000000000))" 11 "$advice"
    at_least cores "$cores" 4 "$advice"
    at_least "cgroup version" "$cgroup" 2 "boot Linux with systemd.unified_cgroup_hierarchy=1, or update it"
}

check_tools() {
    local version
    if ! version=$(kind version -q 2>/dev/null); then
        lacks kind "install 0.32 or later: https://kind.sigs.k8s.io/docs/user/quick-start"
    else
        at_least kind "${version#v}" 0.32 "its nodes fit: https://kind.sigs.k8s.io/docs/user/quick-start"
    fi
    if ! version=$(command kubectl version --client 2>/dev/null); then
        lacks kubectl "install version 1.32 or later: https://kubernetes.io/docs/tasks/tools"
    else
        version=$(sed -n 's/^Client Version: v//p' <<<"$version")
        at_least kubectl "${version:-0}" 1.32 "it builds manifests: https://kubernetes.io/docs/tasks/tools"
    fi
    if command -v git >/dev/null; then
        good git "$(command -v git)"
    else
        lacks git "install it: kubectl fetches Kubeflow's manifests with it"
    fi
}

# Linux only; Docker Desktop's virtual machine has enough.
check_inotify() {
    local name least value
    while read -r name least; do
        value=$(sysctl -n "fs.inotify.$name" 2>/dev/null) || continue
        at_least "$name" "$value" "$least" "sudo sysctl fs.inotify.$name=$least"
    done <<<'max_user_watches 524288
max_user_instances 512'
}

check_ports() {
    local port name process
    if process=$(dashboard_process); then
        good ports "used by make dashboard (process $process)"
        return
    fi
    while read -r port _ _ name; do
        if is_taken "$port"; then
            lacks "port $port" "another program has it; make dashboard needs it for: $name"
        else
            good "port $port" "free"
        fi
    done <<<"$FORWARDED"
}

check_docker
check_tools
check_inotify
check_ports
exit "$lacking"
