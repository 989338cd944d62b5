#!/usr/bin/env bash
# Everything that must hold before a change goes in: lint, types, tests. Arguments go to pytest (-m slow: those that take minutes).
# --full runs every gate of docs/reliability.md at its full size: hours.
set -euo pipefail
cd "$(dirname "$0")"
. .ci/venv.sh
make_venv requirements-dev.lock

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
.venv/bin/mypy
if [ -z "$full" ]; then
    .venv/bin/python -m pytest -q -n "${MOESIM_TEST_JOBS:-2}" -m "not slow" "$@"
else
    MOESIM_FULL_GATES=1 .venv/bin/python -m pytest -q -n "${MOESIM_TEST_JOBS:-2}" --timeout 7200 "$@"
    .venv/bin/python -m benchmarks.soak --minutes "${MOESIM_SOAK_MINUTES:-10}"
    .venv/bin/python -m benchmarks.mutations
fi
