#!/usr/bin/env bash
# The cuda preset compiles, links and passes its tests wherever nvcc is found, GPU or not.
# ctest: slow
# ctest: timeout 1800
# ctest: alone
source "$(dirname "${BASH_SOURCE[0]}")/support/expect.sh"

if ! PATH=$PATH:/usr/local/cuda/bin command -v nvcc > /dev/null; then
  echo "skipped: nvcc is not installed"
  exit 77
fi
cd "$DS_ROOT" || exit 1
cmake --preset cuda > "$work/log" 2>&1 || { cat "$work/log" >&2; complain "preset cuda does not configure"; }
cmake --build --preset cuda --target ds_test_cuda > "$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; complain "preset cuda does not build"; }
build/cuda/bin/ds_test_cuda || complain "the CUDA tests fail"
finish
