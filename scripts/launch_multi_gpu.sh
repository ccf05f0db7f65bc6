#!/usr/bin/env bash
# Trains one model in several processes of this machine, one per GPU: scripts/launch_multi_gpu.sh --help
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/launch_multi_gpu.sh [--processes N] [--grace SECONDS] [--port PORT] FLAG...

Runs `clip_lora FLAG...` in N processes that train one model together, each on a GPU of its own. Process 0 writes the
files and prints what a single process would. Of the others nothing is seen, unless one fails: then the end of what it
said, each line after its rank.

If a process fails, the others are ended and its exit code is returned. SIGINT, SIGTERM and SIGHUP are passed on to all.

  --processes N    how many; by default the GPUs of this machine, or those in CUDA_VISIBLE_DEVICES
  --grace SECONDS  how long the others may take to end by themselves after one has failed, and again after SIGTERM,
                   before they are killed; 30 by default
  --port PORT      where process 0 listens; a free port by default
  CLIP_LORA        the program; by default the one beside this script, or build/release/bin/clip_lora
  OMP_NUM_THREADS  of each process; by default this machine's cores are shared out
TEXT
}

fail_usage() {
  printf '[launch_multi_gpu] error: %s\n' "$*" >&2
  usage >&2
  exit 2
}

count_gpus() {
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then # empty or -1: none
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c '^[^-]' || true
  else
    nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true
  fi
}

# A port where nobody listens, below those that connections are given.
free_port() {
  local port
  for _ in {1..100}; do
    port=$((20000 + RANDOM % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  fail_usage "no free port was found (hint: --port)"
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
clip_lora="${CLIP_LORA:-$here/clip_lora}"
[ -n "${CLIP_LORA:-}" ] || [ -x "$clip_lora" ] || clip_lora="$here/../build/${CLIP_LORA_PRESET:-release}/bin/clip_lora"
processes="" grace=30 port=""
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      usage
      exit
      ;;
    --processes | --grace | --port)
      [[ "${2:-}" =~ ^[0-9]{1,5}$ ]] || fail_usage "$1 '${2:-}': expected a number"
      case "$1" in
        --processes) processes="$2" ;;
        --grace) grace="$2" ;;
        --port) port="$2" ;;
      esac
      shift 2
      ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || fail_usage "expected the flags of clip_lora"
[ -x "$clip_lora" ] || fail_usage "there is no program '$clip_lora' (hint: scripts/build.sh --target clip_lora)"
[ -n "$processes" ] || processes="$(count_gpus)"
[ "$processes" -gt 0 ] || fail_usage "this machine shows no GPU (hint: --processes N, with --device cpu)"
[ -n "$port" ] || port="$(free_port)"

export WORLD_SIZE="$processes" LOCAL_WORLD_SIZE="$processes" MASTER_ADDR=127.0.0.1 MASTER_PORT="$port"
unset TORCHELASTIC_USE_AGENT_STORE TORCHELASTIC_RESTART_COUNT
threads=$(($(nproc) / processes))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"

logs="$(mktemp -d "${TMPDIR:-/tmp}/clip_lora_processes_XXXXXX")"
trap 'rm -rf "$logs"' EXIT

pids=() # by rank; empty once it has ended
signal_all() {
  local pid
  for pid in "${pids[@]}"; do
    [ -z "$pid" ] || kill "-$1" "$2$pid" 2>/dev/null || true
  done
}
trap 'signal_all INT ""' INT
trap 'signal_all TERM ""' TERM
trap 'signal_all HUP ""' HUP

# Each process in a group of its own: else Control-C would reach it twice, and shells have it ignored in the background.
set -m
for ((rank = 0; rank < processes; ++rank)); do
  if [ "$rank" = 0 ]; then
    RANK=0 LOCAL_RANK=0 "$clip_lora" "$@" &
  else
    RANK="$rank" LOCAL_RANK="$rank" "$clip_lora" "$@" </dev/null >/dev/null 2>"$logs/$rank" &
  fi
  pids+=("$!")
done

status=0
failed=no
# Takes note of the processes that have ended, and shows why the first one failed.
collect() {
  local rank code
  for rank in "${!pids[@]}"; do
    if [ -z "${pids[rank]}" ] || kill -0 "${pids[rank]}" 2>/dev/null; then
      continue
    fi
    code=0
    wait "${pids[rank]}" 2>/dev/null || code=$?
    pids[rank]=""
    if [ "$code" != 0 ] && [ "$failed" = no ]; then
      failed=yes
      status=$code
      [ "$rank" = 0 ] || tail -n 20 "$logs/$rank" | sed "s/^/[rank $rank] /" >&2
      printf '[launch_multi_gpu] process %d of %d ended with code %d\n' "$rank" "$processes" "$code" >&2
    fi
  done
}

any_left() {
  local everyone
  everyone="$(printf '%s' "${pids[@]}")"
  [ -n "$everyone" ]
}

# Waits until all have ended, but not longer than the time of grace.
wait_with_grace() {
  local until=$((SECONDS + grace))
  collect
  while any_left && [ "$SECONDS" -lt "$until" ]; do
    sleep 0.1
    collect
  done
}

while [ "$failed" = no ] && any_left; do
  wait -n 2>/dev/null || true # also returns after a signal that was passed on
  collect
done
if any_left; then
  wait_with_grace # they notice by themselves, and say what they know
  signal_all TERM ""
  wait_with_grace
  signal_all KILL "-"
  wait 2>/dev/null || true
fi
exit "$status"
