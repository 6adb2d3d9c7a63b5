#!/usr/bin/env bash
# Sets up what is needed, then checks style and types and runs the tests. Arguments go to pytest.
WITH_TESTS=1 source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
say "style"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
say "types"
"$PYTHON" -m mypy
say "tests"
exec "$PYTHON" -m pytest -n 2 --dist loadfile -q "$@"
