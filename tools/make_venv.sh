#!/bin/sh
# Make .venv with $PYTHON, else with the newest supported Python that is here, else with one that uv fetches.
set -eu
supported='import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
for python in ${PYTHON:-python3.13 python3.12 python3.11 python3.10 python3}; do
  if "$python" -c "$supported" 2>/dev/null; then
    "$python" -m venv --clear .venv
    exit
  fi
done
if [ -n "${PYTHON:-}" ]; then
  echo "$PYTHON is no Python 3.10 to 3.13 with venv: give another PYTHON=, or none." >&2
  exit 1
fi
uv=.cache/uv-venv
mkdir -p .cache
sed -n '/^uv==/,/[^\\]$/p' requirements-dev.lock > .cache/uv.lock
if python3 -m venv "$uv" && "$uv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r .cache/uv.lock &&
  "$uv/bin/uv" venv --quiet --clear --seed --python 3.13 --managed-python .venv; then
  exit
fi
echo "verger needs Python 3.10 to 3.13 with venv (Debian, Ubuntu: apt install python3-venv), or PYTHON=/path/of/one." >&2
exit 1
