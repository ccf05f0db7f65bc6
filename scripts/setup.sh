#!/usr/bin/env bash
# Fetches everything that clip_lora is built from. A second run finds it all there and takes seconds.
set -euo pipefail

# ---- Versions: the only place ----
torch_version=2.11.0 # --torch takes another
open_clip_version=3.3.0 # its wheel holds the BPE merges, ImageNet's class names and the templates
open_clip_sha256=c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce
cuda_oldest=12.6
cutlass_version=4.2.0.0 # nvidia-cutlass, whose wheel holds CUTLASS's headers
cutlass_sha256=f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6
cuda_wheels_version=13.0 # what the next line's hold
cuda_wheels="cuda-toolkit[nvcc,cccl,crt,nvvm,cudart,cublas,cufft,curand,cusolver,cusparse,nvrtc,nvtx]==13.0.2"
python_oldest=3.10 # the oldest that has a wheel of this torch
peer_packages=( # pinned together: pip would try older transformers for a quarter of an hour otherwise
  "transformers==5.17.0" "tokenizers==0.23.3" "huggingface_hub==1.33.0"
  "peft==0.21.2" "accelerate==1.15.0"
  "open-clip-torch==$open_clip_version" "timm==1.0.31" "ftfy==6.3.1"
  "torchvision==0.26.0" "pillow==12.3.0" "numpy==2.4.6" "safetensors==0.8.0"
  "onnx==1.23.2" "onnxruntime==1.32.0" "tensorboard==2.21.0"
)
quality_packages=(clang clang-format-14 clang-tidy-14 git libclang-rt-dev shellcheck) # for scripts/quality.sh
gcovr_version=8.4
tool_packages=(ca-certificates curl g++ cmake ninja-build python3-venv)
opencv_packages=(libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev)
library_packages=(
  libgif-dev libturbojpeg0-dev
  libcli11-dev nlohmann-json3-dev libspdlog-dev libcsv-dev libutf8proc-dev libpcre2-dev zlib1g-dev
  libonnx-dev libprotobuf-dev libxxhash-dev
  libgtest-dev libgmock-dev libbenchmark-dev
)
debian_packages=("${tool_packages[@]}" "${opencv_packages[@]}" "${library_packages[@]}")
# Without root:
cmake_oldest=3.25
build_tool_wheels=("cmake==3.31.10" "ninja==1.13.2")
opencv_version=4.14.0.94 # opencv-python-headless, whose source archive holds OpenCV's
opencv_sha256=4afa2ea1214453648be88259f035712454faa9039b686de7753569ba8eec1577

usage() {
  cat <<'TEXT'
Usage: scripts/setup.sh [--torch VERSION] [--no-root] [--no-apt] [--cpu] [--peers] [--quality]

Installs Debian or Ubuntu packages (as root or with sudo), and fetches into the checkout's folder .deps:
  venv    a Python environment with the torch wheel, and PyPI's CUDA toolkit where the machine has none
  torch   a link to LibTorch in it
  cuda    a link to the CUDA toolkit that the build takes
  cutlass NVIDIA's CUTLASS, headers alone, for kernels on Hopper
  assets  the text tables that are embedded in the library

  --torch VERSION
            take PyPI's wheel of this torch instead of the one that is tested; if it is of CUDA 12, the machine must have
            a toolkit of CUDA 12.6 or newer
  --no-root for a user who is not root on Debian or Ubuntu and has g++ and Python: unpack Debian packages into
            .deps/packages instead of installing them, build the parts of OpenCV that are used, once, in
            .deps/opencv-static, and take CMake and Ninja from PyPI where they are missing or too old.
            .deps/environment.sh says where these are. As long as it is there, the other scripts go on so
  --no-apt  install no system packages; the build then finds them elsewhere, or says which are missing
  --cpu     fetch no CUDA toolkit and no CUTLASS: for builds with -DCLIP_LORA_CUDA=OFF
  --peers   also install the Python libraries that the tests labelled `peer` compare with (about 0.7 GB)
  --quality also install what scripts/quality.sh needs: clang with clang-format and clang-tidy, shellcheck, gcovr (with
            --no-root gcovr alone)
The environment variables CLIP_LORA_ROOT=OFF, CLIP_LORA_APT=OFF, CLIP_LORA_CUDA=OFF, CLIP_LORA_PEERS=ON and
CLIP_LORA_QUALITY=ON mean the same, also to the scripts that call this one. CLIP_LORA_ROOT=ON ends what --no-root began.
TEXT
}

say() { printf '[setup] %s\n' "$*"; }
fail() {
  printf '[setup] error: %s\n' "$*" >&2
  exit 1
}

# at_least 13.1 13.0: whether the first version is not older than the second.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# Those of the given Debian packages that are not installed.
missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

install_debian_packages() {
  command -v apt-get >/dev/null ||
    fail "apt-get is missing: install the like of '${debian_packages[*]}' by other means, then run with --no-apt"
  local missing as_root=()
  mapfile -t missing < <(missing_packages "${debian_packages[@]}")
  if [ ${#missing[@]} -eq 0 ]; then
    say "system packages: all there"
    return
  fi
  say "system packages: installing ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "missing packages, and neither root nor sudo to install them. Let an" \
      "administrator run 'apt-get install ${missing[*]}', or run with --no-root, or with --no-apt if you have them" \
      "elsewhere"
    as_root=(sudo)
    [ -t 0 ] || as_root=(sudo -n) # nobody there to type a password
  fi
  as_root+=(env DEBIAN_FRONTEND=noninteractive)
  "${as_root[@]}" apt-get update -q || fail "apt-get update failed, see above"
  "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install ${missing[*]}, see above"
}

require_build_tools() {
  local tool
  for tool in c++ cmake ninja; do
    command -v "$tool" >/dev/null || fail "$tool is missing (Debian and Ubuntu: apt-get install g++ cmake ninja-build)"
  done
}

# The first Python that is new enough and can make virtual environments; without root one that has no pip will do.
find_python() {
  local python module=ensurepip
  [ "$use_root" = ON ] || module=venv
  for python in python3 /usr/bin/python3; do
    if "$python" -c "import $module, sys; sys.exit(sys.version_info < (${python_oldest/./, }))" 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  fail "Python $python_oldest or newer with its venv module is missing (Debian and Ubuntu: apt-get install python3-venv)"
}

has_pip_wheel() { "$1" -c "import ensurepip" 2>/dev/null; }

# make_venv <python>: Debian keeps the wheel of pip in a package of its own, which python3-venv would bring.
make_venv() {
  if has_pip_wheel "$1"; then
    "$1" -m venv venv
    return
  fi
  local wheel
  wheel="$(find packages /usr/share/python-wheels -name 'pip-*.whl' 2>/dev/null | head -n 1)"
  "$1" -m venv --without-pip venv && PYTHONPATH="$wheel" venv/bin/python -m pip install --no-input --no-index "$wheel"
}

pip_install() { venv/bin/python -m pip install --disable-pip-version-check --no-input "$@"; }

# fetch <package>==<version> <file> <SHA-256> [<argument of pip download>...]: the file as downloads/<file>. pip looks
# at the checksum before it does anything with the file.
fetch() {
  local requirement="$1" file="$2" sha256="$3"
  shift 3
  if echo "$sha256  downloads/$file" | sha256sum --check --status 2>/dev/null; then
    return
  fi
  rm -f "downloads/$file"
  mkdir -p downloads
  echo "$requirement --hash=sha256:$sha256" >downloads/requirement.txt
  venv/bin/python -m pip download --disable-pip-version-check --no-input --no-deps "$@" \
    --dest downloads --requirement downloads/requirement.txt ||
    fail "pip could not fetch $requirement, or what it got is not what is known by its SHA-256, see above"
  [ -f "downloads/$file" ] || fail "pip has fetched $requirement, but not as downloads/$file"
}

# Whether every file that the environment's packages list is there and whole: an interrupted pip leaves gaps.
environment_is_whole() {
  venv/bin/python - <<'PYTHON'
import importlib.metadata, os, sys

for package in importlib.metadata.distributions():
    if package.files is None:
        sys.exit(1)
    for file in package.files:
        path = package.locate_file(file)
        if not os.path.exists(path) or (file.size is not None and os.path.getsize(path) != file.size):
            sys.exit(1)
PYTHON
}

# setup.txt in the environment says what was installed completely.
recorded_as_complete() { [ -f venv/setup.txt ] && grep -qxF "$1" venv/setup.txt; }

make_environment() {
  if venv/bin/python -c "" 2>/dev/null && recorded_as_complete "torch==$torch_version"; then
    say "LibTorch $torch_version: there"
    return
  fi
  local python
  python="$(find_python)"
  if ! venv/bin/python -m pip --version >/dev/null 2>&1 || ! environment_is_whole; then
    say "Python environment: making it in .deps/venv"
    rm -rf venv
    make_venv "$python" || fail "$python -m venv failed (Debian and Ubuntu: apt-get install python3-venv)"
  fi
  say "LibTorch $torch_version: installing the torch wheel and what it needs (about 5 GB unpacked)"
  rm -f venv/setup.txt
  pip_install "torch==$torch_version" ||
    fail "pip could not install torch==$torch_version, see above (network? disk space? an index in pip's configuration?)"
  echo "torch==$torch_version" >venv/setup.txt
}

site_packages() { venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"; }

link_torch() {
  local packages
  packages="$(site_packages)"
  ln -sfn "${packages#"$PWD"/}/torch" torch
  [ -e torch/lib/libtorch_cpu.so ] || fail "the torch wheel has no lib/libtorch_cpu.so in $packages/torch"
}

# The CUDA version that LibTorch was built with, e.g. 13.0. Its libraries and the toolkit's meet in one program.
torch_cuda_version() {
  sed -n "s/^cuda: .* = '\([0-9.]*\)'.*/\1/p" torch/version.py | head -n 1
}

# The folder of the machine's first CUDA toolkit of LibTorch's generation that is new enough, if there is one.
find_machine_cuda() {
  local nvcc version
  for nvcc in "${CUDACXX:-}" "$(command -v nvcc)" "${CUDA_HOME:-}/bin/nvcc" /usr/local/cuda/bin/nvcc; do
    [ -x "$nvcc" ] || continue
    version="$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')"
    if at_least "${version:-0}" "$cuda_oldest" && [ "${version%%.*}" = "$(torch_cuda_version | cut -d . -f 1)" ]; then
      # nvcc may be a wrapper of the one in the toolkit, which knows its own folder.
      realpath "$("$nvcc" --dryrun none.cu 2>&1 | sed -n 's/^#\$ _HERE_=//p')/.."
      return
    fi
    say "CUDA toolkit: $nvcc is ${version:-of unknown version}, LibTorch needs $(torch_cuda_version | cut -d . -f 1)" >&2
  done
}

set_up_cuda() {
  local machine_cuda
  machine_cuda="$(find_machine_cuda)"
  if [ -n "$machine_cuda" ]; then
    say "CUDA toolkit: the machine's in $machine_cuda"
    ln -sfn "$machine_cuda" cuda
    return
  fi
  [ "$(torch_cuda_version | cut -d . -f 1)" = "${cuda_wheels_version%%.*}" ] ||
    fail "torch $torch_version is of CUDA $(torch_cuda_version), and this machine has no toolkit of it that is $cuda_oldest" \
      "or newer; PyPI's, which would be fetched otherwise, is $cuda_wheels_version (hint: install one, and let CUDACXX" \
      "name its nvcc; or take another --torch)"
  if recorded_as_complete "$cuda_wheels"; then
    say "CUDA toolkit: PyPI's, there"
  else
    say "CUDA toolkit: no nvcc >= $cuda_oldest on this machine, installing PyPI's"
    pip_install "$cuda_wheels" || fail "pip could not install $cuda_wheels, see above"
    echo "$cuda_wheels" >>venv/setup.txt
  fi
  local packages
  packages="$(site_packages)"
  make_toolkit_usable "$packages/nvidia/cu13"
  ln -sfn "${packages#"$PWD"/}/nvidia/cu13" cuda
}

# The wheels hold libraries under their versioned names only, in lib; compilers look for lib<name>.so, in lib64 too.
make_toolkit_usable() {
  local root="$1" library
  [ -x "$root/bin/nvcc" ] || fail "the CUDA wheels have no bin/nvcc in $root"
  [ -e "$root/lib64" ] || ln -s lib "$root/lib64"
  for library in "$root"/lib/lib*.so.*; do
    [ -e "${library%%.so.*}.so" ] || ln -s "$(basename "$library")" "${library%%.so.*}.so"
  done
}

# Out of its wheel, which is not installed: only the headers are wanted.
set_up_cutlass() {
  if [ "$(cat cutlass/version.txt 2>/dev/null)" = "$cutlass_version" ]; then
    say "CUTLASS $cutlass_version: there"
    return
  fi
  say "CUTLASS: fetching the wheel of nvidia-cutlass $cutlass_version"
  local wheel="nvidia_cutlass-$cutlass_version-py3-none-any.whl"
  fetch "nvidia-cutlass==$cutlass_version" "$wheel" "$cutlass_sha256" --only-binary :all:
  rm -rf cutlass
  venv/bin/python - "downloads/$wheel" cutlass <<'PYTHON'
import pathlib, sys, zipfile

prefix = "cutlass_library/source/include/"
wheel = zipfile.ZipFile(sys.argv[1])
for name in wheel.namelist():
    if name.startswith(prefix) and not name.endswith("/"):
        path = pathlib.Path(sys.argv[2], "include", name.removeprefix(prefix))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wheel.read(name))
PYTHON
  [ -f cutlass/include/cutlass/cutlass.h ] || fail "the wheel of nvidia-cutlass $cutlass_version has no headers"
  echo "$cutlass_version" >cutlass/version.txt
}

install_peers() {
  if recorded_as_complete "peers: ${peer_packages[*]}"; then
    say "peers: there"
    return
  fi
  say "peers: installing ${peer_packages[*]}"
  pip_install "torch==$torch_version" "${peer_packages[@]}" || fail "pip could not install the peers, see above"
  echo "peers: ${peer_packages[*]}" >>venv/setup.txt
}

install_gcovr() {
  if recorded_as_complete "gcovr==$gcovr_version"; then
    say "gcovr: there"
    return
  fi
  say "gcovr: installing $gcovr_version"
  pip_install "gcovr==$gcovr_version" || fail "pip could not install gcovr==$gcovr_version, see above"
  echo "gcovr==$gcovr_version" >>venv/setup.txt
}

prepare_assets() {
  local wheel="open_clip_torch-$open_clip_version-py3-none-any.whl"
  fetch "open-clip-torch==$open_clip_version" "$wheel" "$open_clip_sha256" --only-binary :all:
  venv/bin/python ../scripts/prepare_assets.py --wheel "downloads/$wheel" --out assets
  say "text tables: there"
}

# ---- Without root ----

# Puts the Debian packages that are missing, and those that they need, into packages/ as they would lie in /.
unpack_debian_packages() {
  local wanted=("${library_packages[@]}") missing needed plan package python
  python="$(find_python)"
  has_pip_wheel "$python" || wanted+=(python3-pip-whl)
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  if [ ${#missing[@]} -eq 0 ]; then
    say "system packages: all installed"
    rm -rf packages
    return
  fi
  if [ "$(cat packages/setup.txt 2>/dev/null)" = "${missing[*]}" ]; then
    say "system packages: there"
    return
  fi
  command -v apt-get >/dev/null || fail "apt-get is missing: --no-root unpacks packages of Debian or Ubuntu (hint:" \
    "install the like of '${debian_packages[*]}' by other means, then run with --no-apt)"
  say "system packages: unpacking ${missing[*]} and what they need"
  # The machine's sources, but lists of our own: its lists may be missing, or name versions that are gone.
  local apt=(apt-get -q -o "Dir::State::Lists=$PWD/apt/lists" -o "Dir::Cache=$PWD/apt/cache")
  rm -rf apt packages packages.partial
  mkdir -p apt/lists/partial apt/cache/archives/partial apt/packages packages.partial
  "${apt[@]}" update || fail "apt-get update failed, see above"
  plan="$("${apt[@]}" install --simulate --no-install-recommends "${missing[@]}")" ||
    fail "apt-get finds no way to have ${missing[*]}, see above"
  mapfile -t needed < <(sed -n 's/^Inst \([^ ]*\) \(\[[^]]*\] \)\?(\([^ ]*\) .*/\1=\3/p' <<<"$plan")
  (cd apt/packages && "${apt[@]}" download "${needed[@]}") || fail "apt-get could not download ${needed[*]}, see above"
  for package in apt/packages/*.deb; do
    dpkg -x "$package" packages.partial || fail "dpkg could not unpack $package"
  done
  link_to_machine_libraries packages.partial
  echo "${missing[*]}" >packages.partial/setup.txt
  mv packages.partial packages
  rm -rf apt
}

# link_to_machine_libraries <folder>: a package's lib<name>.so may be a link to a library that only the machine has.
link_to_machine_libraries() {
  local link target
  find "$1" -xtype l -name '*.so' | while read -r link; do
    target="$(dirname "${link#"$1"}")/$(basename "$(readlink "$link")")"
    [ ! -e "$target" ] || ln -sfn "$target" "$link"
  done
}

# CMake and Ninja as bin/cmake, bin/ctest and bin/ninja, if the machine's will not do.
set_up_build_tools() {
  local version tool
  if recorded_as_complete "${build_tool_wheels[*]}"; then
    say "CMake and Ninja: PyPI's, there"
  else
    version="$({ cmake --version 2>/dev/null || true; } | sed -n 's/^cmake version \([0-9.]*\).*/\1/p')"
    if at_least "${version:-0}" "$cmake_oldest" && command -v ninja >/dev/null; then
      say "CMake and Ninja: the machine's"
      rm -rf bin
      return
    fi
    say "CMake and Ninja: installing PyPI's"
    pip_install "${build_tool_wheels[@]}" || fail "pip could not install ${build_tool_wheels[*]}, see above"
    echo "${build_tool_wheels[*]}" >>venv/setup.txt
  fi
  mkdir -p bin
  for tool in cmake ctest ninja; do
    ln -sfn "../venv/bin/$tool" "bin/$tool"
  done
  PATH="$PWD/bin:$PATH"
}

# Static, with its own codecs: Debian's needs a hundred other packages.
set_up_opencv() {
  if [ "$(cat opencv-static/setup.txt 2>/dev/null)" = "$opencv_version" ]; then
    say "OpenCV $opencv_version: there"
    return
  fi
  if [ -z "$(missing_packages "${opencv_packages[@]}")" ]; then
    say "OpenCV: the machine's"
    return
  fi
  say "OpenCV $opencv_version: fetching its source (96 MB), building three modules of it (9 minutes on two cores)"
  local archive="opencv_python_headless-$opencv_version.tar.gz"
  fetch "opencv-python-headless==$opencv_version" "$archive" "$opencv_sha256" --no-binary opencv-python-headless
  rm -rf opencv-static
  ../scripts/build_opencv.sh "downloads/$archive" opencv-static ||
    fail "OpenCV $opencv_version could not be built, see above"
  echo "$opencv_version" >opencv-static/setup.txt
}

# What build.sh and test.sh read, and so may any shell: `. .deps/environment.sh`.
write_environment() {
  local prefixes="" headers=""
  if [ -d packages ]; then
    prefixes+=":$PWD/packages/usr"
    headers="-idirafter $PWD/packages/usr/include"
  fi
  [ ! -e opencv-static/setup.txt ] || prefixes+=":$PWD/opencv-static"
  cat >environment.sh.partial <<TEXT
# Written by scripts/setup.sh --no-root: where the build finds what that fetched.
export PATH=$(printf %q "$PWD/bin"):"\$PATH"
export CMAKE_PREFIX_PATH="\${CMAKE_PREFIX_PATH:+\$CMAKE_PREFIX_PATH:}"$(printf %q "${prefixes#:}")
# Last, as headers that are installed: LibTorch's folder has some of the same names.
export CFLAGS="\${CFLAGS:-} "$(printf %q "$headers") CXXFLAGS="\${CXXFLAGS:-} "$(printf %q "$headers")
# A program's run path counts for the libraries of its libraries as well.
export LDFLAGS="\${LDFLAGS:-} -Wl,--disable-new-dtags"
TEXT
  mv environment.sh.partial environment.sh
}

use_root="${CLIP_LORA_ROOT:-}"
use_apt="${CLIP_LORA_APT:-ON}"
use_cuda="${CLIP_LORA_CUDA:-ON}"
use_peers="${CLIP_LORA_PEERS:-OFF}"
use_quality="${CLIP_LORA_QUALITY:-OFF}"
while [ $# -gt 0 ]; do
  case "$1" in
    --torch)
      [[ "${2:-}" =~ ^[0-9]+(\.[0-9]+)+$ ]] || fail "--torch '${2:-}': expected a version, e.g. --torch $torch_version"
      torch_version="$2"
      shift
      ;;
    --no-root) use_root=OFF ;;
    --no-apt) use_apt=OFF ;;
    --cpu) use_cuda=OFF ;;
    --peers) use_peers=ON ;;
    --quality) use_quality=ON ;;
    --help | -h)
      usage
      exit 0
      ;;
    *)
      usage >&2
      fail "unknown argument '$1'"
      ;;
  esac
  shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .deps
cd .deps
if [ "$use_quality" = ON ]; then debian_packages+=("${quality_packages[@]}"); fi
if [ -z "$use_root" ]; then # as the last time
  use_root=ON
  [ ! -e environment.sh ] || use_root=OFF
fi
if [ "$use_root" = OFF ]; then
  command -v c++ >/dev/null || fail "g++ is missing, which --no-root does not fetch: let an administrator run" \
    "'apt-get install g++'"
  unpack_debian_packages
else
  rm -f environment.sh
  if [ "$use_apt" = OFF ]; then
    say "system packages: not touched"
  else
    install_debian_packages
  fi
  require_build_tools
fi
make_environment
link_torch
if [ "$use_root" = OFF ]; then
  set_up_build_tools
  set_up_opencv
  write_environment
fi
if [ "$use_cuda" = OFF ]; then
  say "CUDA toolkit: not wanted"
else
  set_up_cuda
  set_up_cutlass
fi
prepare_assets
if [ "$use_peers" = ON ]; then
  install_peers
else
  say "peers: not wanted"
fi
if [ "$use_quality" = ON ]; then install_gcovr; fi
say "done"
