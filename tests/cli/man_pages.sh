#!/usr/bin/env bash
# The committed man pages are what the programs' option tables give, and groff has no complaint.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"

for program in "${programs[@]}"; do
  name=$(basename "$program")
  "$program" --dump-man > "$work/$name.1" || complain "$name --dump-man failed"
  diff -u "$DS_ROOT/man/$name.1" "$work/$name.1" >&2 || complain "man/$name.1 is out of date: scripts/dev man, then commit"
done
"$DS_BIN/ds-bench" ops --man > "$work/ds-ops.7" || complain "ds-bench ops --man failed"
diff -u "$DS_ROOT/man/ds-ops.7" "$work/ds-ops.7" >&2 || complain "man/ds-ops.7 is out of date: scripts/dev man, then commit"
for page in "$DS_ROOT"/man/*.[17]; do
  name=$(basename "$page" .1)
  [[ $page == *.7 ]] || [ -x "$DS_BIN/$name" ] || complain "$page belongs to no program"
  complaints=$(groff -man -ww -z "$page" 2>&1)
  [ -z "$complaints" ] || complain "groff: $complaints"
done
finish
