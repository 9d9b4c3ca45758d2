#!/usr/bin/env bash
# ONNX's own backend cases: those of the onnx wheel (newest opsets), written to build/PRESET/onnx_cases
# on the first run, and those of Debian's libonnx-testdata (opset 17 and older).
# ctest: timeout 600
set -euo pipefail
debian=/usr/share/libonnx-testdata/data/node
[ -d "$debian" ] || { echo "backend_cases.sh: $debian is missing (scripts/dev deps installs libonnx-testdata)" >&2; exit 1; }
cases=$DS_BUILD/onnx_cases
mkdir -p "$cases"
"$DS_PYTHON" "$DS_ROOT/tests/python/onnx_cases.py" "$cases/wheel"
ln -sfn "$debian" "$cases/debian"
"$DS_BIN/ds_tool_onnx_cases" --min-rate 0.97 --exceptions "$DS_ROOT/tests/onnx/exceptions.txt" "$cases/wheel" "$cases/debian"
