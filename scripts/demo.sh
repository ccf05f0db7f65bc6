#!/usr/bin/env bash
# Sets up, builds the program and runs its demonstration: scripts/demo.sh [<argument of clip_lora demo>...]
# It heeds build.sh's environment variables, e.g. CLIP_LORA_ROOT=OFF: sets up as scripts/setup.sh --no-root does.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

"$root/scripts/build.sh" --target clip_lora
exec "$root/build/${CLIP_LORA_PRESET:-release}/bin/clip_lora" demo "$@"
