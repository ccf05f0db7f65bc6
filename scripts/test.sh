#!/usr/bin/env bash
# Sets up, builds everything and runs all tests: scripts/test.sh [<argument of ctest>...], e.g. scripts/test.sh -L unit
#   CLIP_LORA_TEST_DATA  folder with reference numbers and data; tests that need it are skipped without
#   CLIP_LORA_PEERS=ON   installs the Python libraries that the tests labelled `peer` need; they are skipped without
#   CLIP_LORA_ROOT=OFF   sets up as scripts/setup.sh --no-root does
#   CLIP_LORA_PRESET     a preset of CMakePresets.json; `release` by default
set -euo pipefail
if [ -n "${CLIP_LORA_TEST_DATA:-}" ]; then
  CLIP_LORA_TEST_DATA="$(realpath -e "$CLIP_LORA_TEST_DATA")"
  export CLIP_LORA_TEST_DATA
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/build.sh
# shellcheck source=/dev/null
[ ! -e .deps/environment.sh ] || . .deps/environment.sh
started=$SECONDS
status=0
# Tests run side by side: threads that wait for each other should not keep the others' cores busy.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
ctest --preset "${CLIP_LORA_PRESET:-release}" --parallel "$(nproc)" "$@" || status=$?

if [ -z "${CLIP_LORA_TEST_DATA:-}" ]; then
  echo "CLIP_LORA_TEST_DATA is unset: tests against reference numbers and real data were skipped"
fi
if [ "$status" -eq 0 ]; then
  echo "tests: passed in $((SECONDS - started)) s"
else
  echo "tests: FAILED (ctest's exit code $status), see above" >&2
fi
exit "$status"
