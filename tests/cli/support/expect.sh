# Sourced by the command-line tests: run a program and say what must come of it.
set -uo pipefail

failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# All programs that were built: ds, ds-bench, ...
shopt -s nullglob
programs=("$DS_BIN"/ds "$DS_BIN"/ds-*)

complain() {
  printf 'FAILED: %s\n' "$*" >&2
  failures=$((failures + 1))
}

# run ARGS...: exit status in $status, output in $out and $err (text) and $work/out, $work/err.
run() {
  "$@" > "$work/out" 2> "$work/err" < /dev/null
  status=$?
  out=$(cat "$work/out")
  err=$(cat "$work/err")
}

# expect_status CODE ARGS...
expect_status() {
  local code=$1
  shift
  run "$@"
  [ "$status" -eq "$code" ] || complain "$* ended with $status, not $code: $err"
}

# expect_error CODE PIECE ARGS...: that exit code, nothing on stdout, and one line `program: ...PIECE...` on stderr.
expect_error() {
  local code=$1 piece=$2
  shift 2
  expect_status "$code" "$@"
  [ -z "$out" ] || complain "$* wrote to standard output: $out"
  [ "$(wc -l < "$work/err")" -eq 1 ] || complain "$* should say one line, said: $err"
  [[ $err == "$(basename "$1"): "*"$piece"* ]] || complain "$* should mention '$piece', said: $err"
}

finish() {
  [ "$failures" -eq 0 ] || { printf '%d failures\n' "$failures" >&2; exit 1; }
  echo "all as expected"
}
