#!/usr/bin/env bash
# Sets up what is needed and evaluates the tiny model in the package on the benchmark in the package, offline.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
say "python run.py --model Qwen2-VL-Tiny --data ShapesBench $*"
exec "$PYTHON" run.py --model Qwen2-VL-Tiny --data ShapesBench "$@"
