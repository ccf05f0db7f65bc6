#!/bin/bash
# Training on photos that do not fit into memory: large_photos.sh PROGRAM_FOLDER N CHECKPOINT [GiB [WORKERS]]
#
# Writes N JPEGs of 12 megapixels to a temporary folder (some 4 MB each), decodes them without training, then trains two
# epochs on all of them with --image_memory GiB (2 by default). Prints the images per second of both and the training's
# peak of resident memory; exit code 1 if training is slower than 0.9 of decoding alone or needs more than 4 GiB.
# PROGRAM_FOLDER is a build folder with benchmarks, or a folder that has both programs, clip_lora and bench_loader.
# PHOTOS=FOLDER keeps the photos there for another run; FLAGS="--device cuda" are more flags for clip_lora.
set -euo pipefail

if (($# < 3)); then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
programs=$1 count=$2 checkpoint=$3 memory_gib=${4:-2} workers=${5:-$(nproc)}
epochs=2

# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/find_program.sh"
clip_lora=$(find_program clip_lora)
bench_loader=$(find_program bench_loader)

work=$(mktemp -d "${TMPDIR:-/tmp}/large_photos_XXXXXX")
trap 'rm -rf "$work"' EXIT
photos=${PHOTOS:-$work/photos}
if [[ ! -d $photos/train ]]; then
  "$bench_loader" photos "$photos/train" --count "$count" --workers "$workers"
  "$bench_loader" photos "$photos/test" --count 10 --workers "$workers"
fi
"$bench_loader" decode "$photos/train" --workers "$workers" | tee "$work/decode.txt"

read -ra flags <<<"${FLAGS:-}"
python3 - "$work" "$count" "$epochs" "$clip_lora" --dataset "$photos" --shots all --epochs "$epochs" \
  --checkpoint "$checkpoint" --image_memory "$memory_gib" --workers "$workers" --save_path "$work/results" \
  "${flags[@]}" <<'PYTHON'
import json, pathlib, re, resource, subprocess, sys, time

work, count, epochs, command = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
TARGET_RATIO, TARGET_GIB = 0.9, 4.0


def resident_kib(pid):
    """Of this moment: all, that of allocations, that of mapped files (libraries)."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return [0, 0, 0]
    found = [re.search(rf"{key}:\s*(\d+) kB", status) for key in ("VmRSS", "RssAnon", "RssFile")]
    return [int(match[1]) if match else 0 for match in found]


program = subprocess.Popen(command)
largest = [0, 0, 0]
while program.poll() is None:
    largest = max(largest, resident_kib(program.pid))
    time.sleep(0.05)
if program.returncode != 0:
    sys.exit(f"clip_lora ended with exit code {program.returncode}")

peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
results = json.loads(next((work / "results").rglob("results.json")).read_text())
training = count * epochs / results["seconds"]["training"]
decoding = float(re.search(r"([\d.]+) images/s", (work / "decode.txt").read_text())[1])
ratio = training / decoding
print(f"decoding alone {decoding:.1f} images/s, training {training:.1f} images/s: ratio {ratio:.2f}, "
      f"at least {TARGET_RATIO} is wanted")
print(f"peak of resident memory {peak_gib:.2f} GiB, at most {TARGET_GIB:.0f} is wanted "
      f"(allocations {largest[1] / 2**20:.2f}, mapped files {largest[2] / 2**20:.2f})")
sys.exit(0 if ratio >= TARGET_RATIO and peak_gib <= TARGET_GIB else 1)
PYTHON
