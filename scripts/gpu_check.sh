#!/usr/bin/env bash
# What manymask does on a GPU, in one call of at most ten minutes: benchmarks/gpu.py says what. `manymask report OUT` shows it.
#
#   scripts/gpu_check.sh [FLAGS]      flags of benchmarks/gpu.py, e.g. --device cpu --quick
#
# PYTHON  the interpreter, which has torch (python3)
# OUT     gets gpu.json (build/gpu)
# WHEELS  a folder of wheels for a machine without network; they are installed into a temporary folder, without their needs
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH="$PYTHONPATH:$site"
fi
"$python" benchmarks/gpu.py --out "${OUT:-build/gpu}" "$@"
