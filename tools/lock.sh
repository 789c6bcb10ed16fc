#!/usr/bin/env bash
# Locks what pyproject.toml and clients/python/pyproject.toml ask for into requirements/*.txt, with hashes.
#
# usage: tools/lock.sh [--upgrade | --upgrade-package NAME ...]    without: versions already locked stay
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock() { # OUTPUT ARGUMENT...
  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-package tidings --custom-compile-command "make requirements" \
    --output-file "requirements/$1" "${@:2}" >/dev/null
}

projects=(pyproject.toml clients/python/pyproject.toml)
lock dev.txt "$@" "${projects[@]}" --extra terminal --extra cluster --group dev
# A part of dev.txt, in the same versions.
lock run.txt "$@" "${projects[@]}" --extra terminal --extra cluster --group build --constraints requirements/dev.txt
lock bootstrap.txt "$@" requirements/bootstrap.in
