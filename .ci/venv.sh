# Sourced by run.sh and test.sh: make_venv LOCKFILE leaves .venv with moesim and what LOCKFILE pins.
# Nothing is done when the lock files and pyproject.toml are the ones that .venv was made from.

make_venv() {
    local lock=$1 python=${PYTHON:-python3} stamp
    stamp=$(cat pyproject.toml requirements*.lock | cksum)-$lock
    if [ -f ".venv/made-from-$lock" ] && [ "$(cat ".venv/made-from-$lock")" = "$stamp" ]; then
        return
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "moesim needs Python 3.11 or newer; set PYTHON to one" >&2
        exit 3
    }
    echo "installing into .venv (about a minute the first time)" >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$lock"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    echo "$stamp" >".venv/made-from-$lock"
}
