#!/usr/bin/env bash
# Runs the fuzzers of tests/fuzz: scripts/fuzz.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
Usage: scripts/fuzz.sh TARGET SECONDS [flags] [-- <flag of libFuzzer>...]

Builds a fuzzer of tests/fuzz (by clang, with address and undefined-behaviour sanitizers), writes its first inputs, and has
it try changed ones for SECONDS; with 0 only those that it has. The last line says how many inputs were tried, what broke
the program or took it more than 5 s, and its peak of memory; more than 512 MB above what it has at rest breaks it, too.
Inputs that reach something new are kept in build/fuzz/corpus/TARGET, those that break it in build/fuzz/findings.
The exit code is 1 if there is any.

TARGET is `all` (each for SECONDS) or one of
TEXT
  printf '  %s\n' "${targets[@]}"
  cat <<'TEXT'

  --inputs N         stop after N inputs, if SECONDS are not over before
  --no-build         take the programs as they are
  --build-dir DIR    the build folder; build/fuzz by default
TEXT
}
fail() {
  printf '[fuzz] error: %s\n' "$*" >&2
  exit 2
}

mapfile -t targets < <(sed -n 's/^clip_lora_fuzz_target(\([a-z_]*\) .*/\1/p' tests/fuzz/CMakeLists.txt)
build=ON build_dir=build/fuzz inputs=-1 positional=() own_flags=()
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      usage
      exit 0
      ;;
    --no-build) build=OFF ;;
    --inputs | --build-dir)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case "$1" in
        --inputs) inputs="$2" ;;
        --build-dir) build_dir="$2" ;;
      esac
      shift
      ;;
    --)
      shift
      own_flags=("$@")
      break
      ;;
    -*) fail "unknown flag '$1' (hint: scripts/fuzz.sh --help)" ;;
    *) positional+=("$1") ;;
  esac
  shift
done
[ "${#positional[@]}" -eq 2 ] || fail "expected TARGET and SECONDS, got '${positional[*]}' (hint: scripts/fuzz.sh --help)"
seconds="${positional[1]}"
[[ "$seconds" =~ ^[0-9]+$ ]] || fail "SECONDS '$seconds': expected a whole number"
[[ "$inputs" =~ ^(-1|[0-9]+)$ ]] || fail "--inputs '$inputs': expected a whole number"
chosen=("${positional[0]}")
if [ "${positional[0]}" = all ]; then
  chosen=("${targets[@]}")
elif [[ " ${targets[*]} " != *" ${positional[0]} "* ]]; then
  fail "unknown target '${positional[0]}', expected all or one of: ${targets[*]}"
fi

if [ "$build" = ON ]; then
  [ "$build_dir" = build/fuzz ] || fail "--build-dir needs --no-build"
  command -v clang++ >/dev/null || fail "clang++ is missing (hint: install clang, which has libFuzzer)"
  CLIP_LORA_PRESET=fuzz CLIP_LORA_CUDA=OFF scripts/build.sh --target "${chosen[@]/#/fuzz_}"
fi

# Readers that take a path get one in memory.
memory=/dev/shm
[ -d "$memory" ] && [ -w "$memory" ] || memory="${TMPDIR:-/tmp}"
TMPDIR="$(mktemp -d "$memory/clip_lora_fuzz_XXXXXX")"
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
export OMP_NUM_THREADS=1
# What was freed is kept aside for a while to notice its use; by default 256 MB, which would hide the readers' own memory.
export ASAN_OPTIONS="quarantine_size_mb=16:allocator_may_return_null=0:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:${UBSAN_OPTIONS:-}"

# stat LOG NAME: the figure NAME of libFuzzer's final statistics.
stat() { sed -n "s/^stat::$2: *//p" "$1" | tail -1; }
# count GLOB...: how many of these files there are.
count() {
  local found=0 file
  for file in "$@"; do
    if [ -e "$file" ]; then found=$((found + 1)); fi
  done
  echo "$found"
}

broken=0
for target in "${chosen[@]}"; do
  program="$build_dir/tests/fuzz_$target"
  [ -x "$program" ] || fail "'$program' is missing (hint: leave out --no-build)"
  seeds="$build_dir/seeds/$target" corpus="$build_dir/corpus/$target" findings="$build_dir/findings"
  log="$build_dir/fuzz_$target.log"
  mkdir -p "$corpus" "$findings"
  rm -rf "$seeds"
  "$program" --seeds "$seeds" >"$log"
  # What the program and its libraries take with one empty input.
  "$program" -runs=1 -print_final_stats=1 -print_funcs=0 >"$log" 2>&1 || fail "the empty input breaks it, see '$log'"
  at_rest="$(stat "$log" peak_rss_mb)"

  # Without the entropic schedule, whose bookkeeping takes several times as long as the readers of short files.
  flags=(-timeout=5 -rss_limit_mb=$((at_rest + 512)) -malloc_limit_mb=512 -print_final_stats=1 -print_funcs=0
    -artifact_prefix="$findings/$target-" -max_len=4096 -entropic=0)
  case "$target" in
    adapters | images | torch_archives) flags+=(-max_len=8192) ;;
    tokenizer) flags+=(-max_len=512) ;;
  esac
  if [ -f "tests/fuzz/$target.dict" ]; then flags+=("-dict=tests/fuzz/$target.dict"); fi
  if [ "$seconds" -eq 0 ]; then flags+=(-runs=0); else flags+=("-max_total_time=$seconds" "-runs=$inputs"); fi
  # What was found before and is mended is a finding no more.
  for finding in "$findings/$target-"*; do
    if [ -e "$finding" ] && "$program" -timeout=5 "$finding" >"$log" 2>&1; then rm "$finding"; fi
  done
  status=0
  "$program" "${flags[@]}" "${own_flags[@]}" "$corpus" "$seeds" >"$log" 2>&1 || status=$?
  crashes="$(count "$findings/$target-crash-"* "$findings/$target-leak-"*)"
  hangs="$(count "$findings/$target-timeout-"*)"
  bombs="$(count "$findings/$target-oom-"*)"
  printf '%-20s %9s inputs (%s/s), %s crashes, %s hangs, %s out of memory, peak %s MB (%s at rest), coverage %s%s\n' \
    "$target" "$(stat "$log" number_of_executed_units)" "$(stat "$log" average_exec_per_sec)" "$crashes" "$hangs" \
    "$bombs" "$(stat "$log" peak_rss_mb)" "$at_rest" "$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)" \
    "$([ "$status" -eq 0 ] || echo "; BROKEN, see $log")"
  if [ "$status" -ne 0 ] || [ $((crashes + hangs + bombs)) -gt 0 ]; then broken=1; fi
done
exit "$broken"
