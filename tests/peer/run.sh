#!/bin/sh
# run.sh <python> <test.py>: runs a test; 77, which ctest shows as skipped, where the environment has no such Python.
if [ ! -x "$1" ]; then
  echo "Skipped: there is no Python environment at $1 (hint: scripts/setup.sh --peers)"
  exit 77
fi
exec "$@"
