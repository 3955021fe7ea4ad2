#!/bin/sh
# Install a lock file into .venv: tools/install.sh LOCK [OPTION…]. uv takes a fraction of pip's time, but
# reads none of pip's settings, by which some networks say where packages are: what it cannot, pip does.
set -eu
python=.venv/bin/python
pip() { "$python" -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r "$@"; }
if [ ! -x .venv/bin/uv ]; then
  sed -n '/^uv==/,/[^\\]$/p' requirements-dev.lock > .venv/uv.lock
  pip .venv/uv.lock
fi
.venv/bin/uv pip install --quiet --system-certs --python "$python" --require-hashes --no-deps -r "$@" || pip "$@"
