# shellcheck shell=bash
# What stands in for kind, kubectl and docker, which need a cluster: each call becomes a line of
# $STAND_INS/calls, and fails if it has the text $FAIL in it.
call="${0##*/} $*"
printf '%s\n' "$call" >>"$STAND_INS/calls"
if [ -n "${FAIL:-}" ] && [[ $call == *"$FAIL"* ]]; then
    echo "stand-in: this call fails: $call" >&2
    exit 1
fi
