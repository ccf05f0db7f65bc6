#!/usr/bin/env bash
# Checks of the code beside its tests: scripts/quality.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=/dev/null
[ ! -e .deps/environment.sh ] || . .deps/environment.sh

usage() {
  cat <<'TEXT'
Usage: scripts/quality.sh [CHECK [ARGUMENT...]]

  format [FILE...]     clang-format's layout, of all C++ and CUDA files or of these
  shell [FILE...]      what shellcheck finds in all shell scripts or in these
  rooms                what each room may include, and how long files may be
  tidy [--since COMMIT] [--seconds N] [FILE...]
                       what clang-tidy finds in all .cpp files (ten read as one, which is several times faster), in
                       these, or in those that have changed since COMMIT; after N seconds no further file is begun,
                       and those left out are counted
  asan [TARGET...]     address and undefined-behaviour sanitizers over the tests labelled unit and golden, or over those
                       of what these targets build, e.g. tests_unit
  tsan                 thread sanitizer over the tests of core, io, text, image and data
  coverage [PERCENT]   lines of src/ outside CUDA that tests without a GPU run, at least 90 % or PERCENT; lists the rest
  kills [N]            every command killed at N moments and changes of its files, 100 by default, and a full disk from
                       as many on: hours
  fuzz [SECONDS]       every fuzzer, for 600 s or SECONDS each

Without CHECK all of them. The exit code is 0 if nothing is found.
CLIP_LORA_QUALITY=ON scripts/setup.sh, which this calls, installs what they need.
TEXT
}

fail() {
  printf '[quality] error: %s\n' "$*" >&2
  exit 1
}

# The layout, and what is found, differ between versions: this is Debian 12's.
llvm=14

need() {
  command -v "$1" >/dev/null || fail "$1 is missing (hint: CLIP_LORA_QUALITY=ON scripts/setup.sh installs it)"
}

list_files() { find apps include src tests \( -name '*.cpp' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh' \) | sort; }

check_format() {
  need "clang-format-$llvm"
  local files=("$@")
  if [ $# -eq 0 ]; then mapfile -t files < <(list_files); fi
  "clang-format-$llvm" --dry-run --Werror "${files[@]}" ||
    fail "these files are laid out otherwise than .clang-format says (hint: clang-format-$llvm -i FILE...)"
  echo "format: ${#files[@]} files, nothing found"
}

check_shell() {
  need shellcheck
  local files=("$@")
  if [ $# -eq 0 ]; then mapfile -t files < <(find scripts tests -name '*.sh' | sort && echo .ci/run); fi
  shellcheck --external-sources "${files[@]}"
  echo "shell: ${#files[@]} scripts, nothing found"
}

check_rooms() {
  cmake -D "ROOT=$PWD" -P cmake/check_rooms.cmake
  echo "rooms: nothing found"
}

# The .cpp files that have changed since a commit.
changed_sources() { git diff --name-only --diff-filter=d "$1" -- 'apps/*.cpp' 'src/*.cpp' 'tests/*.cpp'; }

# tidy_one FILE: prints what is found. Appends FILE to $tidy_found, or to $tidy_left_out if the time is over.
tidy_one() {
  if [ "$tidy_until" -gt 0 ] && [ "$(date +%s)" -ge "$tidy_until" ]; then
    echo "$1" >>"$tidy_left_out"
    return
  fi
  echo "tidy: $1"
  # A file that includes ten others is what CMake makes of them.
  local flags=(-p "$tidy_tree" --quiet --warnings-as-errors='*')
  if [[ "$1" = *.cxx ]]; then
    flags+=(--checks=-bugprone-suspicious-include --header-filter="^$PWD/(apps|include|src|tests)/")
  fi
  "clang-tidy-$llvm" "${flags[@]}" "$1" 2> >(grep -v 'warnings\? generated' >&2) ||
    echo "$1" >>"$tidy_found"
}

check_tidy() {
  need "clang-tidy-$llvm"
  local since="" seconds=0 files=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --since)
        since="${2:-}"
        [ -n "$since" ] || fail "--since: expected a commit"
        shift
        ;;
      --seconds)
        [[ "${2:-}" =~ ^[0-9]+$ ]] || fail "--seconds '${2:-}': expected a whole number"
        seconds="$2"
        shift
        ;;
      -*) fail "tidy: unknown flag '$1'" ;;
      *) files+=("$1") ;;
    esac
    shift
  done
  local preset=tidy
  if [ -z "$since" ] && [ ${#files[@]} -eq 0 ]; then preset=tidy_all; fi
  tidy_tree="build/$preset"
  local configure=(cmake --preset "$preset")
  if [ -n "${CLIP_LORA_CUDA:-}" ]; then configure+=("-DCLIP_LORA_CUDA=$CLIP_LORA_CUDA"); fi
  "${configure[@]}" >/dev/null
  # Only what is compiled here, of which the compiler's flags are known.
  local compiled
  compiled="$(sed -n "s|^ *\"file\": \"$PWD/\(.*\.c[px][px]\)\".*|\1|p" "$tidy_tree/compile_commands.json" | sort -u)"
  if [ -n "$since" ]; then
    need git
    local sources
    sources="$(changed_sources "$since")" || fail "git cannot say which files have changed since '$since'"
    mapfile -t files < <(grep -xF "$compiled" <<<"$sources" || true)
  elif [ ${#files[@]} -eq 0 ]; then
    mapfile -t files <<<"$compiled"
  fi
  if [ ${#files[@]} -eq 0 ]; then
    echo "tidy: no file has changed"
    return
  fi

  tidy_until=0
  if [ "$seconds" -gt 0 ]; then tidy_until=$(($(date +%s) + seconds)); fi
  tidy_found="$tidy_tree/found.txt" tidy_left_out="$tidy_tree/left_out.txt"
  : >"$tidy_found"
  : >"$tidy_left_out"
  export llvm tidy_tree tidy_until tidy_found tidy_left_out
  export -f tidy_one
  # shellcheck disable=SC2016  # the inner bash expands it
  printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'tidy_one "$1"' tidy
  local left_out found
  left_out="$(wc -l <"$tidy_left_out")"
  found="$(wc -l <"$tidy_found")"
  if [ "$left_out" -gt 0 ]; then
    echo "tidy: after $seconds s, $left_out of ${#files[@]} files were left out: $(paste -sd ' ' "$tidy_left_out")"
  fi
  [ "$found" -eq 0 ] || fail "clang-tidy finds something in $found files: $(paste -sd ' ' "$tidy_found")"
  echo "tidy: $((${#files[@]} - left_out)) files, nothing found"
}

# run_tests PRESET TARGET...: builds these targets without CUDA and runs what the preset selects of their tests.
run_tests() {
  local preset="$1"
  shift
  CLIP_LORA_PRESET="$preset" CLIP_LORA_CUDA=OFF scripts/build.sh --target "$@"
  OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" ctest --preset "$preset" --no-tests=error --parallel "$(nproc)"
}

check_asan() {
  if [ $# -eq 0 ]; then set -- tests_unit tests_golden; fi
  run_tests asan "$@"
}

check_tsan() { run_tests tsan unit_core unit_data unit_image unit_io unit_text; }

check_coverage() {
  local least="${1:-90}"
  [[ "$least" =~ ^[0-9]+$ ]] || fail "coverage: PERCENT '$least', expected a whole number"
  local gcovr=.deps/venv/bin/gcovr
  need "$gcovr"
  CLIP_LORA_PRESET=coverage CLIP_LORA_CUDA=OFF scripts/build.sh
  find build/coverage -name '*.gcda' -delete
  OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" ctest --preset coverage --parallel "$(nproc)"
  local status=0
  # Dropout bits alone are drawn more often than gcovr holds for possible.
  "$gcovr" --root . --filter src/ --gcov-suspicious-hits-threshold 0 --exclude '.*\.cuh?$' \
    --merge-mode-functions separate --print-summary --fail-under-line "$least" --txt build/coverage/lines.txt build/coverage || status=$?
  cat build/coverage/lines.txt
  [ "$status" -eq 0 ] || fail "less than $least % of the lines ran, or gcovr failed, see above"
}

check_kills() {
  CLIP_LORA_PRESET=release scripts/build.sh --target clip_lora slow_kills
  OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" CLIP_LORA_KILLS="${1:-100}" \
    ctest --preset release --no-tests=error --parallel "$(nproc)" -R '^(Each/Kills|KillsOfAll)\.'
}

check_fuzz() { scripts/fuzz.sh all "${1:-600}"; }

all=(format shell rooms tidy asan tsan coverage kills fuzz)
check="${1:-all}"
case "$check" in
  --help | -h)
    usage
    exit 0
    ;;
  format | shell | rooms | tidy | asan | tsan | coverage | kills | fuzz)
    shift
    "check_$check" "$@"
    ;;
  all)
    CLIP_LORA_QUALITY=ON scripts/setup.sh
    failed=()
    for check in "${all[@]}"; do
      scripts/quality.sh "$check" || failed+=("$check")
    done
    [ ${#failed[@]} -eq 0 ] || fail "not passed: ${failed[*]}"
    echo "quality: ${all[*]}: passed"
    ;;
  *)
    usage >&2
    fail "unknown check '$check'"
    ;;
esac
