#!/usr/bin/env bash
# `cmake --install` puts programs, man pages and completions where a package would, and they work there.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"

prefix=$work/usr
cmake --install "$DS_BUILD" --prefix "$prefix" > "$work/log" 2>&1 || { cat "$work/log" >&2; complain "cmake --install failed"; }
for program in "${programs[@]}"; do
  name=$(basename "$program")
  for file in "bin/$name" "share/man/man1/$name.1" "share/bash-completion/completions/$name" \
    "share/zsh/vendor-completions/_$name" "share/fish/vendor_completions.d/$name.fish"; do
    [ -s "$prefix/$file" ] || complain "$file is not installed"
  done
  expect_status 0 "$prefix/bin/$name" --version
done
for page in ds-design ds-ops; do [ -s "$prefix/share/man/man7/$page.7" ] || complain "man7/$page.7 is not installed"; done
[ -s "$prefix/share/doc/ds/LICENSE" ] || complain "the licence is not installed"
if command -v man > /dev/null; then
  [ "$(MANPATH=$prefix/share/man man -w ds 2> /dev/null)" = "$prefix/share/man/man1/ds.1" ] || complain "man does not find ds(1)"
fi
if [ -x "$DS_BIN/ds-bench" ]; then
  expect_status 0 "$prefix/bin/ds" bench --version
  [[ $out == "ds-bench "* ]] || complain "the installed ds starts: $out"
fi
# Nothing else: no test programs, no stray folders.
(cd "$prefix" && find . -type f | grep -vE '^\./(bin/ds(-[a-z]+)?|share/(man/man[17]/ds[a-z-]*\.[17]|bash-completion/completions/ds[a-z-]*|zsh/vendor-completions/_ds[a-z-]*|fish/vendor_completions\.d/ds[a-z-]*\.fish|doc/ds/[A-Za-z.-]+))$') > "$work/stray" &&
  complain "unexpected files: $(cat "$work/stray")"
finish
