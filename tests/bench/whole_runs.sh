#!/bin/bash
# Times whole runs, from the process's start to its end: whole_runs.sh PROGRAM_FOLDER [FLAGS...]
#
# Generates pictures and a ViT-B/16 with random weights (with python3's torch), then trains with 16 shots for 8,000
# iterations on data of EuroSAT's size (10 classes, 2 x 8,100 test images of 64 px) and of ImageNet's (1,000 classes,
# 2 x 50,000 test images of 500 x 375), and for one iteration on few images, which shows what starting takes. FLAGS are
# clip_lora's. PROGRAM_FOLDER is a build folder with benchmarks, or a folder that has both programs, clip_lora and
# bench_loader. DATA=FOLDER keeps data and checkpoint there for another run; PYTHON is another python3; CASES="start
# eurosat imagenet" chooses. Prints the seconds beside what is wanted; exit code 1 if a run takes longer.
set -euo pipefail

if (($# < 1)); then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
programs=$1
shift

# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/find_program.sh"
clip_lora=$(find_program clip_lora)
bench_loader=$(find_program bench_loader)

work=$(mktemp -d "${TMPDIR:-/tmp}/whole_runs_XXXXXX")
trap 'rm -rf "$work"' EXIT
data=${DATA:-$work/data}
mkdir -p "$data"
if [[ ! -f $data/vit_b_16.pt ]]; then
  "${PYTHON:-python3}" - "$(dirname "$0")/../../scripts" "$data/vit_b_16.pt" <<'PYTHON'
import sys

sys.path.insert(0, sys.argv[1])
import baseline_pytorch
import torch

clip = baseline_pytorch.Clip(baseline_pytorch.ARCHITECTURES["ViT-B/16"])
tensors = {name: tensor.half() for name, tensor in clip.state_dict().items()}
torch.save(tensors | {"logit_scale": torch.tensor(100.0).log()}, sys.argv[2])
PYTHON
fi

# pictures NAME TRAINING_IMAGES TEST_IMAGES CLASSES WIDTH HEIGHT
pictures() {
  local name=$1 size=(--classes "$4" --width "$5" --height "$6" --workers "$(nproc)")
  if [[ ! -d $data/$name ]]; then
    "$bench_loader" photos "$data/$name.part/train" --count "$2" "${size[@]}"
    "$bench_loader" photos "$data/$name.part/test" --count "$3" "${size[@]}"
    mv "$data/$name.part" "$data/$name"
  fi
}

failed=0
# run NAME SECONDS FLAGS...: a run on data/NAME that may take so long
run() {
  local name=$1 wanted=$2 begin end
  shift 2
  begin=$(date +%s.%N)
  "$clip_lora" --dataset "$data/$name" --checkpoint "$data/vit_b_16.pt" "$@"
  end=$(date +%s.%N)
  awk -v name="$name" -v begin="$begin" -v end="$end" -v wanted="$wanted" 'BEGIN {
    printf "%s: %.1f s from start to end, at most %d wanted\n", name, end - begin, wanted
    exit end - begin > wanted }' || failed=1
}

for case in ${CASES:-start eurosat imagenet}; do
  case $case in
    start)
      pictures few 20 10 10 64 64
      run few 3 --shots 1 --n_iters 1 "$@"
      ;;
    eurosat)
      pictures eurosat_like 160 8100 10 64 64
      run eurosat_like 60 --shots 16 "$@"
      ;;
    imagenet)
      pictures imagenet_like 16000 50000 1000 500 375
      run imagenet_like 120 --shots 16 "$@"
      ;;
    *)
      echo "unknown case '$case'" >&2
      exit 2
      ;;
  esac
done
exit "$failed"
