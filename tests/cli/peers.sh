#!/usr/bin/env bash
# scripts/peers without a network: says so in one line and leaves nothing that a later run would take for complete.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"

mkdir -p "$work/tree/scripts" "$work/tree/tests"
cp "$DS_ROOT/scripts/peers" "$work/tree/scripts/"
cp "$DS_ROOT"/tests/requirements*.txt "$work/tree/tests/"

expect_status 0 "$work/tree/scripts/peers" --help
[[ $out == *"--quick"* ]] || complain "--help says: $out"

# Port 9 of this machine: nobody answers.
export PIP_INDEX_URL=http://127.0.0.1:9/simple PIP_CACHE_DIR=$work/cache
expect_status 69 "$work/tree/scripts/peers" --quick
last=$(tail -n 1 "$work/err")
[[ $last == "scripts/peers: "* ]] || complain "without a network it says: $err"
[ "$(wc -l < "$work/err")" -le 2 ] || complain "without a network it says too much: $err"
[ -z "$out" ] || complain "without a network it prints: $out"
[ ! -e "$work/tree/build/peers-venv/.installed" ] || complain "the failed installation counts as complete"
finish
