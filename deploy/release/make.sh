#!/bin/sh
# Makes what a release consists of, in dist/: the wheel, the bill of materials of everything that it installs (CycloneDX,
# JSON), and their SHA-256 sums. Called by `make dist`, from the project's root; PYTHON names the interpreter.
set -eu
PYTHON=${PYTHON:-python3.11}
BIN=.venv/bin
WORK=.cartsync/dist

rm -rf dist "$WORK"
mkdir -p dist "$WORK"
echo "dist 1/3: the wheel"
"$BIN/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

echo "dist 2/3: installing it into an empty environment, from the lock alone"
"$BIN/python" -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
    --dest "$WORK/wheels" --requirement requirements.lock
"$PYTHON" -m venv "$WORK/runtime"
"$WORK/runtime/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$WORK/wheels" dist/*.whl
"$WORK/runtime/bin/cartsync" --version

echo "dist 3/3: the bill of materials"
"$PYTHON" -m venv "$WORK/tools"
"$WORK/tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement deploy/release/requirements.lock
"$WORK/runtime/bin/python" -m pip uninstall --quiet --disable-pip-version-check --yes pip setuptools
# Reproducible: neither a time nor a serial number, so the same lock gives the same file.
"$WORK/tools/bin/cyclonedx-py" environment --output-reproducible --pyproject pyproject.toml --mc-type application \
    --output-format JSON --output-file dist/cartsync.cdx.json "$WORK/runtime/bin/python"
(cd dist && sha256sum -- *.whl *.json > SHA256SUMS && cat SHA256SUMS)
