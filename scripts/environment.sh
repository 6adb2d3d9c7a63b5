# Sourced by the other scripts: makes, or finds again, the Python environment, and sets $PYTHON to its interpreter.
#
# It lives outside the clone, named after what it was made from, so that a second clone or a second run takes seconds.
# VLMEVAL_ENV=/some/folder puts it elsewhere.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }
fail() { printf 'vlmeval: error: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    say "installing $* with apt-get (a fresh Debian or Ubuntu leaves it out)"
    as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

find_python() {
    local name
    for name in "${VLMEVAL_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        [ -n "$name" ] && command -v "$name" >/dev/null || continue
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo "$name"; return; }
    done
    return 1
}

hash_of() { cat "$@" | sha256sum | cut -c1-12; }

make_environment() {
    local base=$1 version
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # Debian ships python3 without the part of venv that brings pip along.
    "$base" -c 'import ensurepip, venv' 2>/dev/null || apt_install "python${version}-venv" \
        || fail "$base cannot make a virtual environment; install the package python${version}-venv and start again"
    rm -rf "$ENV_DIR"
    "$base" -m venv "$ENV_DIR"
}

install_requirements() {
    local file=$1 done_mark
    done_mark="$ENV_DIR/.installed-$(hash_of "$file")"
    [ -e "$done_mark" ] && return
    say "installing $file into $ENV_DIR (the first time: some 6 GB, a few minutes)"
    "$PYTHON" -m pip install --disable-pip-version-check -q -r "$file" \
        || fail "the packages of $file could not be installed; see above, and start again: it goes on from there"
    touch "$done_mark"
}

BASE_PYTHON=$(find_python) || { apt_install python3 python3-venv && BASE_PYTHON=$(find_python); } \
    || fail "no Python 3.10 or newer found; install one, or name it: VLMEVAL_PYTHON=/path/to/python3"
ENV_NAME="$("$BASE_PYTHON" -c 'import sys; print("py%d%d" % sys.version_info[:2])')-$(hash_of requirements.txt)"
ENV_DIR="${VLMEVAL_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/vlmeval/env}/$ENV_NAME"
PYTHON="$ENV_DIR/bin/python"
mkdir -p "$(dirname "$ENV_DIR")"

# Two scripts started at once shall not install into each other's environment.
exec 9>"$ENV_DIR.lock"
if command -v flock >/dev/null && ! flock -n 9; then
    say "another set-up is at work in $ENV_DIR: waiting for it"
    flock 9
fi
"$PYTHON" -c '' 2>/dev/null && [ -e "$ENV_DIR/.made" ] || { make_environment "$BASE_PYTHON"; touch "$ENV_DIR/.made"; }
install_requirements requirements.txt
[ -z "${WITH_TESTS:-}" ] || install_requirements requirements-test.txt
exec 9>&-
say "environment: $ENV_DIR ($("$PYTHON" --version))"
