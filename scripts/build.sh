#!/usr/bin/env bash
# Sets up what is missing, then configures and builds: scripts/build.sh [<argument of cmake --build>...]
#   CLIP_LORA_PRESET     a preset of CMakePresets.json; `release` by default
#   CLIP_LORA_CUDA=OFF   builds without a CUDA toolkit
#   CLIP_LORA_ROOT=OFF   sets up as scripts/setup.sh --no-root does
#   CLIP_LORA_APT=OFF    installs no system packages
#   CLIP_LORA_PEERS=ON   also installs the Python libraries that the tests labelled `peer` compare with
#   CMAKE_PREFIX_PATH    where a LibTorch, an OpenCV, ... other than those that setup.sh fetches are
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset="${CLIP_LORA_PRESET:-release}"
scripts/setup.sh
# shellcheck source=/dev/null
[ ! -e .deps/environment.sh ] || . .deps/environment.sh

# A file with LibTorch's headers takes up to 2 GB to compile.
memory_gb="$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)"
jobs="$(nproc)"
if [ "$jobs" -gt $((memory_gb / 2)) ]; then
  jobs=$((memory_gb / 2 > 0 ? memory_gb / 2 : 1))
fi

configure=(cmake --preset "$preset")
if [ -n "${CLIP_LORA_CUDA:-}" ]; then
  configure+=("-DCLIP_LORA_CUDA=$CLIP_LORA_CUDA")
fi
"${configure[@]}"
cmake --build "build/$preset" --parallel "$jobs" "$@"
