#!/bin/sh
# Makes or updates .venv from the hash-locked requirements. Called by `make setup`.
# Needs nothing but PATH and HOME: a Python of at least 3.11, or uv, which brings one.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\033[2m%s\033[0m\n' "$*" >&2; }
[ -t 2 ] || say() { printf '%s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# Trust what this machine trusts, as behind a company's proxy it must (the variable's old name and its new one).
if [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ]; then
    export UV_NATIVE_TLS="${UV_NATIVE_TLS:-true}" UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
fi

uv=$(command -v uv || true)
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    rm -rf .venv
    python=$(find_python)
    if [ -n "$uv" ]; then
        say "setup: creating .venv with uv"
        "$uv" venv --quiet --python "${python:->=3.11}" .venv
    elif [ -n "$python" ]; then
        say "setup: creating .venv with $python"
        "$python" -m venv .venv || {
            rm -rf .venv
            fail "'$python -m venv' failed. On Debian and Ubuntu install python3-venv, or install uv."
        }
    else
        fail "Python 3.11 or later is needed and none was found on PATH (set PYTHON=… to name one, or install uv)."
    fi
fi

if [ -z "$uv" ]; then
    uv=.venv/bin/uv
    [ -x "$uv" ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --require-hashes --requirement requirements/uv.txt
fi

count=$(grep -c "^[a-z0-9].*==" requirements/dev.txt)
say "setup: installing $count locked packages (the first time takes some minutes)"
# Compiled once here: each process of each test would compile them anew where none may write them later.
"$uv" pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements/dev.txt
"$uv" pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps \
    --editable ./streaming_exporter --editable .
