#!/usr/bin/env bash
# Builds wheel and sdist into dist/, checks what is in them, and runs the README's first example from the wheel alone.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
rm -rf dist build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== build"
"$python" -m venv "$work/build"
"$work/build/bin/pip" install --quiet build twine
"$work/build/bin/python" -m build --outdir dist .
"$work/build/bin/twine" check --strict dist/*

echo "== contents"
"$python" scripts/check_contents.py dist

echo "== the README's first example, from the wheel in an empty environment"
"$python" -m venv "$work/empty"
"$work/empty/bin/pip" install --quiet --constraint constraints.txt dist/*.whl
"$python" scripts/first_example.py README.md > "$work/first.py"
cd "$work"
time "$work/empty/bin/python" first.py
"$work/empty/bin/steerlens" --help > /dev/null
echo "== all of it holds"
