#!/bin/sh
# Checks what this machine lacks for `make setup` and for the local cluster, and what to do, one line per check; exit
# code 2 if something is missing. `doctor.sh setup` leaves out the cluster. It needs only a shell.
set -u
cd "$(dirname "$0")" || exit
python=${PYTHON:-python3}
venv=${VENV:-.venv}
lacking=0

good() { printf 'ok       %-18s %s\n' "$1" "$2"; }

lacks() {
    printf 'MISSING  %-18s %s\n' "$1" "$2"
    lacking=2
}

check_python() {
    if ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
        version="no $python"
    fi
    case $version in
    3.11 | 3.12)
        good python "$version"
        return 0
        ;;
    esac
    for other in python3.12 python3.11; do
        if command -v "$other" >/dev/null; then
            lacks python "$version, and 3.11 or 3.12 is needed; there is one: make PYTHON=$other setup"
            return 1
        fi
    done
    advice="install one (Debian, Ubuntu: sudo apt-get install python3.12 python3.12-venv; macOS: brew install"
    lacks python "$version, and 3.11 or 3.12 is needed: $advice python@3.12), then make PYTHON=python3.12 setup"
    return 1
}

# Checks of a Python with a supported version.
check_modules() {
    if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        good "module venv" "there"
    else
        lacks "module venv" "a separate package on Debian and Ubuntu: sudo apt-get install python$version-venv"
    fi
    for module in ssl sqlite3 zlib ctypes; do
        if ! "$python" -c "import $module" 2>/dev/null; then
            lacks "module $module" "this Python was built without it; install another one, or install the library and rebuild it"
        fi
    done
    if [ "$(uname -s)" = Linux ]; then
        if "$python" -c 'import ctypes; ctypes.CDLL("libstdc++.so.6")' 2>/dev/null; then
            good libstdc++ "there"
        else
            lacks libstdc++ "TensorFlow needs it: sudo apt-get install libstdc++6 (Fedora: sudo dnf install libstdc++)"
        fi
    fi
}

check_locale() {
    encoding=$("$python" -c 'import locale; print(locale.getpreferredencoding(False))' 2>/dev/null)
    case $encoding in
    UTF-8 | utf-8 | utf8) good locale "$encoding" ;;
    *) lacks locale "its encoding is ${encoding:-unknown}, and file names may have any characters: export LC_ALL=C.UTF-8" ;;
    esac
}

# A folder, the required GB, the purpose.
check_disk() {
    free=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 {print int($4 / 1000000)}')
    if [ "${free:-0}" -ge "$2" ]; then
        good "disk, GB free" "$free in $1"
    else
        lacks "disk, GB free" "${free:-0} in $1, and $2 are needed for $3: make room${4:-}"
    fi
}

check_disks() {
    if [ -e "$venv/installed" ]; then
        check_disk . 2 "a run"
    else
        check_disk . 8 "the virtual environment and a run"
        check_disk "${TMPDIR:-/tmp}" 2 "the installation" ", or set TMPDIR to a folder with more"
    fi
}

# Uses pip itself, since it has the user's index, mirror, proxy and certificates.
check_index() {
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        good "package index" "not tried: this Python has no pip of its own"
        return
    fi
    folder=$(mktemp -d) || return
    if said=$("$python" -m pip --disable-pip-version-check --retries 0 --timeout 15 download --no-cache-dir \
        --no-deps --dest "$folder" idna 2>&1); then
        good "package index" "answers"
    else
        case $said in
        *CERTIFICATE*) advice="its certificate is not trusted: export PIP_CERT=<the file of your organization's>" ;;
        *ProxyError* | *"proxy"*) advice="the proxy does not answer: look at HTTPS_PROXY (http://HOST:PORT)" ;;
        *) advice="it does not answer: behind a proxy, export HTTPS_PROXY=http://HOST:PORT; with a mirror, \
pip config set global.index-url ADDRESS" ;;
        esac
        lacks "package index" "$advice (pip download idna says more)"
    fi
    rm -r "$folder"
}

check_venv() {
    if [ -e "$venv" ] && ! "$venv/bin/python" -c '' 2>/dev/null; then
        lacks "folder $venv" "its Python does not start; delete it (rm -r $venv) and call make setup"
    fi
}

echo "For make setup and runs on this machine:"
if check_python; then
    check_modules
    check_locale
    check_index
fi
check_disks
check_venv
if [ "${1:-}" != setup ]; then
    echo
    echo "For the local cluster, which nothing else needs:"
    kind-cluster/doctor.sh || lacking=2
fi
exit "$lacking"
