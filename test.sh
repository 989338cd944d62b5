#!/usr/bin/env bash
# Everything that must hold before a change goes in: lint, types, tests. Arguments go to pytest (-m slow: those that take minutes).
# --full runs every gate of docs/reliability.md at its full size: hours.
set -euo pipefail
cd "$(dirname "$0")"
. .ci/venv.sh
make_venv requirements-dev.lock

jobs=${MOESIM_TEST_JOBS:-2}
full=
if [ "${1:-}" = --full ]; then
    full=1
    shift
fi

# The pages are tested in a real browser, where one is to be had.
if [ ! -x /usr/bin/chromium ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null ||
        echo "no chromium: the browser tests are skipped" >&2
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy & # on one core, beside the first tests
types=$!
test=(.venv/bin/python -m pytest -q -n "$jobs" --dist worksteal)
if [ -z "$full" ]; then
    "${test[@]}" -m "not slow" "$@"
    wait "$types"
else
    wait "$types"
    MOESIM_FULL_GATES=1 "${test[@]}" --timeout 7200 "$@"
    NUMBA_DISABLE_JIT=1 "${test[@]}" --timeout 7200 -m "not lab and not browser and not jit and not slow" "$@"
    .venv/bin/python -m benchmarks.soak --minutes "${MOESIM_SOAK_MINUTES:-10}"
    .venv/bin/python -m benchmarks.mutations
fi
