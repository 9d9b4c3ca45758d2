#!/usr/bin/env bash
# What every program has in common: help, version, wrong flags, closed and full outputs, no terminal.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"

for program in "${programs[@]}"; do
  name=$(basename "$program")

  expect_status 0 "$program" --help
  [[ $out == "Usage: $name"* ]] || complain "$name --help starts with: ${out:0:40}"
  [ -z "$err" ] || complain "$name --help wrote to standard error: $err"
  LC_ALL=C grep -q $'\033' "$work/out" && complain "$name --help is coloured without a terminal"
  expect_status 0 "$program" --version
  [[ $out =~ ^$name\ [0-9]+\.[0-9]+\.[0-9]+$ ]] || complain "$name --version says: $out"

  expect_error 64 "unknown option '--no-such-option'" "$program" --no-such-option
  expect_error 64 "did you mean '--version'?" "$program" --versoin
  expect_error 64 "(see $name --help)" "$program"

  # A reader that leaves early is no error; a full disk is.
  (sleep 0.1; exec "$program" --dump-man 2> "$work/err") | true  # it has left before we begin
  [ ! -s "$work/err" ] || complain "$name --dump-man | head said: $(cat "$work/err")"
  "$program" --help > /dev/full 2> "$work/err"
  [ $? -eq 74 ] || complain "$name --help > /dev/full should end with 74"
  grep -q "^$name: standard output: " "$work/err" || complain "$name on a full disk said: $(cat "$work/err")"

  # Same bytes each time, whatever the terminal and the language.
  "$program" --dump-man > "$work/a"
  COLUMNS=40 LC_ALL=C TERM=dumb NO_COLOR=1 "$program" --dump-man > "$work/b"
  cmp -s "$work/a" "$work/b" || complain "$name --dump-man depends on the environment"
done

expect_error 64 "unknown command 'trian', did you mean 'train'?" "$DS_BIN/ds" trian
mkdir "$work/bin"
cp "$DS_BIN/ds" "$work/bin/ds"
expect_error 69 "ds-train: No such file or directory" "$work/bin/ds" train
printf '#!/bin/sh\nprintf "<%%s>" "$@"\nexit 7\n' > "$work/bin/ds-other"
chmod +x "$work/bin/ds-other"
expect_status 7 "$work/bin/ds" other "a b" --help ""
[ "$out" = "<a b><--help><>" ] || complain "ds passes arguments on as: $out"
finish
