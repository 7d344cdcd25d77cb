#!/bin/sh
# Installs the system packages that tests need, as root on Debian and Ubuntu. Elsewhere it prints what to install.
# Called by `make test` and `make test-all`. It costs nothing where all of them are installed.
set -eu
cd "$(dirname "$0")/.."

has() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

missing=""
has "${EXPORTER_TEST_BROWSER:-chromium}" || has chromium-browser || has google-chrome ||
    missing="$missing chromium fonts-dejavu-core"          # the page
has npm || missing="$missing nodejs npm"                     # the page and the TypeScript client
has sshd || missing="$missing openssh-server"                # destinations
has pgbouncer || missing="$missing pgbouncer"                # sources behind a pooler
has mvn || missing="$missing maven default-jdk-headless"     # the example for Spring
[ -n "$missing" ] || exit 0

if has apt-get && [ "$(id -u)" = 0 ]; then
    printf 'setup: installing system packages for tests:%s\n' "$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # Another copy can be doing the same.
    if apt-get update -qq -o DPkg::Lock::Timeout=300 >&2 &&
        # shellcheck disable=SC2086 # a list of names
        apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 $missing >/dev/null; then
        case "$missing" in *npm*) rm -f .venv/.ready ;; esac # .venv was made without Node.js
        exit 0
    fi
fi
printf 'setup: some tests will fail without these packages (names of Debian and Ubuntu):%s\n' "$missing" >&2
