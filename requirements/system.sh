#!/bin/sh
# Installs the system packages that tests need, as root on Debian and Ubuntu. Elsewhere it prints what to install.
# Called by `make test` and `make test-all`. It costs nothing where all of them are installed.
set -eu

has() { command -v "$1" >/dev/null || [ -x "${SYSTEM_COMMANDS:-/usr/sbin}/$1" ]; }

# Chromium without windows takes half of the processor time. Where it cannot be had, one with windows serves.
shell=chromium-headless-shell
has_other_browser() { has chromium || has chromium-browser || has google-chrome; }
can_have_shell() { [ "$(id -u)" = 0 ] && has apt-cache && apt-cache show "$shell" >/dev/null 2>&1; }

# One line for each group: without the packages of one group the others are still of use.
missing=$(
    has "${EXPORTER_TEST_BROWSER:-$shell}" || { has_other_browser && ! can_have_shell; } ||
        echo $shell fonts-dejavu-core         # the page
    has npm || echo nodejs npm                # the page and the TypeScript client
    has sshd || echo openssh-server           # destinations
    has pgbouncer || echo pgbouncer           # sources behind a pooler
    has mvn || echo maven default-jdk-headless # the example for Spring
)
[ -n "$missing" ] || exit 0

apt() { apt-get "$@" -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=600 >/dev/null; }
install() { apt install -y --no-install-recommends "$@" </dev/null; }

if has apt-get && [ "$(id -u)" = 0 ]; then
    printf 'setup: installing system packages for tests: %s\n' "$(echo $missing)" >&2
    export DEBIAN_FRONTEND=noninteractive
    if has flock; then # another copy can be doing the same
        exec 9>"${TMPDIR:-/tmp}/exporter-system-packages.lock"
        flock -w 900 9 || true
    fi
    apt update || true # the lists that are there can be new enough
    missing=$(echo "$missing" | while read -r group; do
        # shellcheck disable=SC2086 # a list of names
        install $group && continue
        case $group in
            "$shell "*) has_other_browser || install chromium fonts-dejavu-core || echo chromium fonts-dejavu-core ;;
            *) echo "$group" ;;
        esac
    done)
    [ -n "$missing" ] || exit 0
fi
printf 'setup: some tests will fail without these packages (names of Debian): %s\n' "$(echo $missing)" >&2
