#!/usr/bin/env bash
# The bash completion of every program loads and completes options, values and commands; zsh and
# fish scripts are checked by their own shells where these are installed.
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"

# complete_words WORDS...: what bash would offer for the last word.
complete_words() {
  COMP_WORDS=("$@")
  COMP_CWORD=$(($# - 1))
  COMPREPLY=()
  "_${1//-/_}"
  printf '%s\n' "${COMPREPLY[@]}"
}

for program in "${programs[@]}"; do
  name=$(basename "$program")
  "$program" --dump-completion bash > "$work/$name.bash" || complain "$name: no bash completion"
  # shellcheck disable=SC1090
  source "$work/$name.bash" || complain "$name: bash completion does not load"
  offered=$(complete_words "$name" --)
  while IFS= read -r option; do
    grep -qx -e "$option" <<< "$offered" || complain "$name: bash completion misses $option"
  done < <("$program" --help | grep -oE '^  (-[a-zA-Z], |    )--[a-z0-9-]+' | grep -oE -e '--[a-z0-9-]+')
  for shell in zsh fish; do
    "$program" --dump-completion $shell > "$work/$name.$shell" || complain "$name: no $shell completion"
    [ -s "$work/$name.$shell" ] || complain "$name: empty $shell completion"
    if command -v $shell > /dev/null; then
      $shell -n "$work/$name.$shell" || complain "$name: $shell cannot read its completion"
    fi
  done
  expect_error 64 "'tcsh' is not bash, zsh or fish" "$program" --dump-completion tcsh
done
grep -qx train <<< "$(complete_words ds tr)" || complain "ds tr does not complete to train"
finish
