#!/usr/bin/env bash
# Makes .venv with the locked requirements and both local distributions, and for development installs the packages of
# clients/typescript from its lock; does nothing when nothing changed.
#
# usage: tools/setup.sh [run|dev]    run: what the server and terminal client need; dev (default): also tests and tools
#
# Needs Python 3.11 or newer. On Debian and Ubuntu a missing python3 or python3-venv is installed through apt-get.
# PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${1:-dev}
case $profile in
  run | dev) ;;
  *) echo "usage: tools/setup.sh [run|dev]" >&2 && exit 2 ;;
esac

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*" && exit 1; }

mkdir -p .venv
exec 9>.venv/.setup-lock
flock 9

# An environment once made for development stays one.
[ "$profile" = run ] && [ -e .venv/.setup-dev ] && profile=dev
locked=requirements/$profile.txt
stamp=.venv/.setup-$profile
state=$(pwd && sha256sum tools/setup.sh requirements/bootstrap.txt "$locked" pyproject.toml clients/python/pyproject.toml)

# Installs the packages of the TypeScript SDK, unless they are there. Node comes with .venv, else from the system.
install_npm() (
  [ "$profile" = dev ] || exit 0
  PATH=$PWD/.venv/bin:$PATH
  cd clients/typescript
  stamp=node_modules/.setup
  node --eval 'const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)' 2>/dev/null ||
    fail "Node 20.19 or newer is needed for clients/typescript; install it and try again"
  state=$(sha256sum package.json package-lock.json .npmrc)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ] && exit 0
  say "installing clients/typescript/package-lock.json"
  npm ci --silent
  printf '%s\n' "$state" >"$stamp"
)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ] && [ -x .venv/bin/python ]; then
  install_npm
  exit
fi

# Prints the path (not the shim) of the first Python >= 3.11 that can make environments.
find_python() {
  local name
  for name in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14 /usr/bin/python3}; do
    "$name" -c "import sys; assert sys.version_info >= (3, 11)
import ensurepip, venv; print(sys._base_executable)" 2>/dev/null && return 0
  done
  return 1
}

install_debian() {
  command -v apt-get >/dev/null || fail "Python 3.11 or newer with its venv module is needed; install it and try again"
  local as_root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "please install as root: apt-get install $*"
    as_root=sudo
  fi
  say "installing $* through apt-get"
  $as_root apt-get update -qq >/dev/null
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# Prometheus' own checker of metrics, out of Debian's package: installed whole, that would start a server.
take_promtool() {
  command -v promtool >/dev/null || [ -x .venv/bin/promtool ] && return
  command -v apt-get >/dev/null || fail "promtool, which comes with Prometheus, is needed for tests; install it and try again"
  local folder
  folder=$(mktemp -d)
  say "taking promtool from Debian's package prometheus"
  if ! (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null 2>&1); then
    [ "$(id -u)" -eq 0 ] || fail "the package lists are missing; please run as root: apt-get update"
    apt-get update -qq >/dev/null
    (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null)
  fi
  dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -xO ./usr/bin/promtool >"$folder/promtool"
  install -m 755 "$folder/promtool" .venv/bin/promtool
  rm -rf "$folder"
}

if ! .venv/bin/python -c 'import pip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null; then
  python=$(find_python) || {
    [ -z "${PYTHON:-}" ] || fail "$PYTHON is not a Python 3.11 or newer with its venv module"
    install_debian python3 python3-venv
    python=$(find_python) || fail "no Python 3.11 or newer found; name one with PYTHON=/path/to/python"
  }
  say "making .venv with $python"
  # The lock is in .venv: its content is replaced, not the folder.
  find .venv -mindepth 1 -maxdepth 1 ! -name .setup-lock -exec rm -rf {} +
  "$python" -m venv .venv
fi

say "installing $locked"
rm -f "$stamp"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
  --requirement requirements/bootstrap.txt
# Trust what the system trusts, as pip does: companies and test machines have authorities of their own.
[ -e /etc/ssl/certs/ca-certificates.crt ] && export UV_SYSTEM_CERTS=true
uv() { .venv/bin/uv --quiet --no-progress pip install --python .venv/bin/python "$@"; }
uv --require-hashes --requirement "$locked"
uv --no-deps --no-build-isolation --editable clients/python --editable .
[ "$profile" = run ] || take_promtool
printf '%s\n' "$state" >"$stamp"
install_npm
say "done"
