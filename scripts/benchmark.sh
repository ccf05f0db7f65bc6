#!/usr/bin/env bash
# Times clip_lora beside the same method in plain PyTorch, in one run: scripts/benchmark.sh --help
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/benchmark.sh [flags]

Builds the benchmarks, runs them and scripts/baseline_pytorch.py in turns on the same device, and prints the results in
Markdown: medians and quartiles, ratios, peak memory, and what an iteration's parts take. With a CUDA device in fp16,
which takes minutes; else on the CPU in fp32, with few iterations, since one takes PyTorch up to minutes.

  --cpu              compare on the CPU although there is a CUDA device
  --threads N        threads of both on the CPU; 2 by default
  --classes LIST     numbers of classes for ViT-B/16; "10 100 1000" by default
  --iterations N     timed iterations on CUDA, of each benchmark; 200 by default
  --rounds N         how often each case is run on the CPU, ours and PyTorch's in turns; 2 by default
  --limits LIST      on CUDA, also train with 1,000 classes with the GPU's memory held to so many GiB, e.g. "8 12 24"
  --out FOLDER       keep the JSON of all runs and the table there; a temporary folder by default
  --no-build         take the programs as they are
  --build-dir DIR    the build folder; build/cuda by default, or that of CLIP_LORA_PRESET
  --python PYTHON    the Python that has PyTorch; .deps/venv/bin/python by default
CLIP_LORA_CUDA=OFF and what else scripts/build.sh listens to mean the same here.
TEXT
}

say() { printf '[benchmark] %s\n' "$*" >&2; }
# What the table should say beside its figures.
note() {
  say "$*"
  printf '%s\n' "$*" >>"$out/notes.txt"
}
fail() {
  say "error: $*"
  exit 1
}

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
preset="${CLIP_LORA_PRESET:-cuda}"
build_dir="$root/build/$preset"
python="$root/.deps/venv/bin/python"
build=ON device=auto threads=2 classes="10 100 1000" iterations=200 rounds=2 limits="" out=""
while [ $# -gt 0 ]; do
  case "$1" in
    --cpu) device=cpu ;;
    --no-build) build=OFF ;;
    --help | -h)
      usage
      exit 0
      ;;
    --threads | --classes | --iterations | --rounds | --limits | --out | --build-dir | --python)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case "$1" in
        --threads) threads="$2" ;;
        --classes) classes="$2" ;;
        --iterations) iterations="$2" ;;
        --rounds) rounds="$2" ;;
        --limits) limits="$2" ;;
        --out) out="$2" ;;
        --build-dir) build_dir="$2" ;;
        --python) python="$2" ;;
      esac
      shift
      ;;
    *)
      usage >&2
      fail "unknown argument '$1'"
      ;;
  esac
  shift
done

if [ "$build" = ON ]; then
  [ "$build_dir" = "$root/build/$preset" ] ||
    fail "--build-dir goes with --no-build; CLIP_LORA_PRESET chooses what is built"
  CLIP_LORA_PRESET="$preset" "$root/scripts/build.sh" --target bench_ops bench_step bench_evaluation >&2
fi
for program in bench_ops bench_step bench_evaluation; do
  [ -x "$build_dir/bench/$program" ] || fail "$build_dir/bench has no $program (hint: leave out --no-build)"
done
"$python" -c "import torch" || fail "$python has no PyTorch (hint: scripts/setup.sh, or --python)"
if [ "$device" = auto ]; then
  device="$("$python" -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')")"
fi
if [ -z "$out" ]; then
  out="$(mktemp -d "${TMPDIR:-/tmp}/clip_lora_benchmark_XXXXXX")"
  trap 'rm -rf "$out"' EXIT
fi
mkdir -p "$out"
rm -f "$out"/{step,ops,limit}_*.json "$out"/{evaluation.json,baseline.jsonl,notes.txt}

processor="$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
machine="$processor, $(nproc) cores"
if [ "$device" = cuda ]; then
  machine="$("$python" -c "import torch; print(torch.cuda.get_device_name())"), driver $(
    nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1 || echo unknown
  ), $machine"
fi
printf '%s, %s\n' "$machine" "$(date +%Y-%m-%d)" >"$out/machine.txt"

# ours <name of the JSON> <program> <regular expression of its benchmarks> [<flag>...]
ours() {
  local name="$1" program="$2" filter="$3"
  shift 3
  say "$program $filter $*"
  "$build_dir/bench/$program" --device "$device" --benchmark_filter="$filter" --benchmark_out="$out/$name.json" \
    --benchmark_out_format=json "$@" >&2 || note "$program $* failed"
}

# theirs <flag>...
theirs() {
  say "baseline_pytorch.py $*"
  "$python" "$root/scripts/baseline_pytorch.py" --device "$device" --json "$@" >>"$out/baseline.jsonl" ||
    note "baseline_pytorch.py $* failed"
}

# compare <backbone> <number of classes>: one training iteration
compare() {
  ours "step_${1//\//_}_$2" bench_step "^step/${1//\//_}/classes:$2/" --iterations "$iterations"
  theirs --backbone "$1" --classes "$2" --iterations "$iterations"
}

# compare_pairs <batch> <number of classes>: one of R-Adapter, on pairs of image and text
compare_pairs() {
  ours "step_r_adapter_$1" bench_step "^step/ViT-B_16/method:r_adapter/loss:mpm_nce/batch:$1/classes:$2/" \
    --iterations "$iterations"
  theirs --method r_adapter --batch_size "$1" --classes "$2" --iterations "$iterations"
}

on_cuda() {
  local count limit backbone
  for count in $classes; do
    compare ViT-B/16 "$count"
  done
  compare ViT-L/14 100
  compare ViT-B/32 100
  compare_pairs 32 100
  compare_pairs 512 1000
  ours evaluation bench_evaluation '^evaluation/ViT-B_16/batch:256/' --iterations "$iterations"
  theirs --encode --iterations "$iterations"
  for count in $classes; do
    ours "ops_$count" bench_ops . --classes "$count" --iterations 50 --warm_up 5
  done
  for limit in $limits; do
    for backbone in ViT-B_16 ViT-L_14; do
      ours "limit_${backbone}_$limit" bench_step "^step/$backbone/classes:1000/" --memory_gib "$limit" \
        --iterations "$iterations"
    done
  done
}

# The memory that a process may still take, in GiB.
available_gib() {
  local kib limit used
  kib="$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)"
  limit="$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)"
  if [ "$limit" != max ]; then
    used="$(cat /sys/fs/cgroup/memory.current)"
    if [ $(((limit - used) / 1024)) -lt "$kib" ]; then
      kib=$(((limit - used) / 1024))
    fi
  fi
  echo $((kib / 1048576))
}

on_cpu() {
  local count round needed
  export OMP_NUM_THREADS="$threads"
  for count in $classes; do
    # Eager PyTorch keeps about 64 MiB per prompt for the backward pass, and 9 GiB for the images.
    needed=$((9 + count * 65 / 1000))
    for ((round = 1; round <= rounds; ++round)); do
      ours "step_${count}_$round" bench_step "^step/ViT-B_16/classes:$count/" --threads "$threads" --iterations 2
      if [ "$(available_gib)" -lt "$needed" ]; then
        note "PyTorch with $count classes left out: it needs about $needed GiB of memory, $(available_gib) are free"
      elif [ "$count" -ge 500 ]; then
        theirs --threads "$threads" --classes "$count" --iterations 1 --warm_up 0
      else
        theirs --threads "$threads" --classes "$count" --iterations 2
      fi
    done
  done
}

if [ "$device" = cuda ]; then
  on_cuda
else
  on_cpu
fi
"$python" "$root/scripts/benchmark_table.py" "$out" | tee "$out/table.md"
