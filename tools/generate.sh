#!/usr/bin/env bash
# Generates the Python and TypeScript messages and stubs and the OpenAPI description from proto/, and keeps proto/baseline.txtpb, the contract as it stands.
#
# usage: tools/generate.sh            generate, and take the contract over into the baseline unless it breaks clients
#        tools/generate.sh --accept   the same, and take it over even so
#        tools/generate.sh --check    change nothing; fail if the above would change something
#
# What "breaks" is judged against the baseline that landed: that of origin/main where the clone knows it, else of HEAD.
# So a field may be reshaped freely until it has landed, and only --accept, seen in review as a changed baseline,
# lets a break through.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH

mode=${1:-}
case $mode in
  "" | --accept | --check) ;;
  *) echo "usage: tools/generate.sh [--accept | --check]" >&2 && exit 2 ;;
esac

package=clients/python/tidings/v1
typescript=clients/typescript/src/gen
openapi=server/tidings_server/bridge/openapi.json
baseline=proto/baseline.txtpb
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { printf 'generate: %s\n' "$*" >&2 && exit 1; }
image() { buf build "$@" --exclude-source-info; }

buf generate --output "$work"
buf generate --template buf.gen.typescript.yaml --output "$work"
# mypy-protobuf writes stub files for messages-only files too, where no module will stand beside them.
for stub in "$work/$package"/*_pb2_grpc.pyi; do
  [ -e "${stub%i}" ] || rm "$stub"
done
image proto --output "$work/contract.binpb"
buf build proto --output "$work/told.binpb"
python3 -m tools.openapi "$work/told.binpb" >"$work/openapi.json"

if [ "$mode" = --check ]; then
  diff --recursive --brief --exclude=__init__.py --exclude=__pycache__ "$work/$package" "$package" >&2 &&
    diff --recursive --brief "$work/$typescript" "$typescript" >&2 &&
    diff --brief "$work/openapi.json" "$openapi" >&2 ||
    fail "generated code differs from proto/: run 'make generate' and commit"
  [ -e "$baseline" ] || fail "$baseline is missing: run 'make generate' and commit"
  buf breaking proto --against "$baseline" >&2 ||
    fail "the contract broke against $baseline (CONTRIBUTING.md, 'The contract')"
  image "$baseline" --output "$work/baseline.binpb"
  cmp --silent "$work/contract.binpb" "$work/baseline.binpb" ||
    fail "$baseline lags behind proto/: run 'make generate' and commit"
  exit 0
fi

for old in "$package"/*_pb2*.py*; do
  [ -e "$work/$package/${old##*/}" ] || rm -f "$old"
done
for new in "$work/$package"/*; do
  cmp --silent "$new" "$package/${new##*/}" || cp "$new" "$package/"
done
cmp --silent "$work/openapi.json" "$openapi" || cp "$work/openapi.json" "$openapi"
# Nothing hand-written stands among the TypeScript files.
if ! diff --recursive --brief "$work/$typescript" "$typescript" >/dev/null 2>&1; then
  rm -rf "$typescript"
  cp -r "$work/$typescript" "$typescript"
fi

if [ "$mode" != --accept ]; then
  for landed in origin/main HEAD; do
    git show "$landed:$baseline" >"$work/landed.txtpb" 2>/dev/null || continue
    buf breaking proto --against "$work/landed.txtpb" >&2 ||
      fail "this breaks clients of the contract in $landed; if that is meant: make proto-baseline"
    break
  done
fi
image proto --output "$work/contract.txtpb"
cmp --silent "$work/contract.txtpb" "$baseline" || cp "$work/contract.txtpb" "$baseline"
