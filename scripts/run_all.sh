#!/usr/bin/env bash
# The paper's tables: one sweep for each of configs/sweeps/, and a report of each.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/run_all.sh ROOT_PATH SAVE_PATH [--only NAME] [FLAG...]

Runs the sweeps of configs/sweeps/ on the data sets below ROOT_PATH, one after the other, each into a folder of its
name in SAVE_PATH, and reports each. FLAGs go to every `clip_lora sweep`, e.g. --gpus all, --skip_missing, --force.
Started again, it does what is missing.

With --slurm or --print_runs among FLAGS nothing is run, and nothing reported.

  --only NAME   one of them: main_table, rank_and_matrices, positions or encoders
  CLIP_LORA     the program; by default build/release/bin/clip_lora
TEXT
}

fail_usage() {
  printf '[run_all] error: %s\n' "$*" >&2
  usage >&2
  exit 2
}

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
clip_lora="${CLIP_LORA:-$root/build/${CLIP_LORA_PRESET:-release}/bin/clip_lora}"
for word in "$@"; do
  case "$word" in -h | --help)
    usage
    exit
    ;;
  esac
done
[ $# -ge 2 ] || fail_usage "expected ROOT_PATH and SAVE_PATH"
root_path=$1
save_path=$2
shift 2
names=(main_table rank_and_matrices positions encoders)
if [ "${1:-}" = --only ]; then
  [ -f "$root/configs/sweeps/${2:-}.json" ] || fail_usage "--only '${2:-}': expected one of ${names[*]}"
  names=("$2")
  shift 2
fi
[ -x "$clip_lora" ] || fail_usage "there is no program '$clip_lora' (hint: scripts/build.sh --target clip_lora)"

reports=yes
for word in "$@"; do
  case "$word" in --slurm | --print_runs) reports=no ;; esac
done

status=0
for name in "${names[@]}"; do
  printf '[run_all] %s\n' "$name" >&2 # the standard output may be --print_runs's
  code=0
  "$clip_lora" sweep --config "$root/configs/sweeps/$name.json" --root_path "$root_path" --save_path "$save_path/$name" \
    "$@" || code=$?
  # Runs that failed (1) do not stop the rest; bad flags, missing data and signals do.
  [ "$code" -le 1 ] || exit "$code"
  [ "$code" = 0 ] || status=$code
  # 3: not one run left results.
  [ "$reports" = no ] || "$clip_lora" report "$save_path/$name" || status=$?
done
exit "$status"
