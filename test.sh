#!/usr/bin/env bash
# Everything that must hold before a change goes in: lint, types, tests. Arguments go to pytest (-m slow: those that take minutes).
set -euo pipefail
cd "$(dirname "$0")"
. .ci/venv.sh
make_venv requirements-dev.lock

# The pages are tested in a real browser, where one is to be had.
if [ ! -x /usr/bin/chromium ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null ||
        echo "no chromium: the browser tests are skipped" >&2
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest -q -n "${MOESIM_TEST_JOBS:-2}" -m "not slow" "$@"
