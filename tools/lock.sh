#!/bin/sh
# Resolve requirements/*.in into hash-checked locks for every platform and Python 3.11 or newer.
set -eu
cd "$(dirname "$0")/../requirements"
export UV_NO_CONFIG=1
constraint=
for name in html test lab serve lint; do
    # shellcheck disable=SC2086
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-annotate --custom-compile-command "make lock" $constraint "$@" "$name.in" -o "$name.txt"
    [ "$name" = html ] && constraint="-c html.txt"
done
