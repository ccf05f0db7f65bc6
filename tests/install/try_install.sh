#!/usr/bin/env bash
# Tries the README's commands on a bare Debian: tests/install/try_install.sh [--no-root] FOLDER [COMMAND...]
#   FOLDER     outside the checkout; a Debian 12 is put into FOLDER/bare by debootstrap, unless it is there already, and
#              copied to FOLDER/debian, with a fresh clone of this checkout's last commit. Whoever gave it removes it.
#   COMMAND    what is run in the clone, each in a shell of its own; scripts/demo.sh and scripts/test.sh by default,
#              with --no-root scripts/setup.sh --no-root before them
#   --no-root  as a user of that Debian, where an administrator has installed g++, python3, git and ca-certificates;
#              otherwise as root, where nothing is installed
# Needs root, for debootstrap and chroot. The sources of packages, their proxies, pip's configuration and certificates
# are this machine's. What is mounted is seen by this script alone and goes with it, however it ends.
set -euo pipefail

suite=bookworm
from_machine=(/etc/pip.conf /etc/resolv.conf /etc/hosts /usr/local/share/ca-certificates)

fail() {
  printf '[install] error: %s\n' "$*" >&2
  exit 1
}
say() { printf '[install] %s\n' "$*"; }

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

as_root=ON
case "${1:-}" in
  --no-root)
    as_root=OFF
    shift
    ;;
  --help | -h)
    usage
    exit 0
    ;;
esac
if [ $# -lt 1 ] || [[ "$1" == -* ]]; then
  usage >&2
  exit 2
fi
folder="$(realpath -m "$1")"
shift
commands=("$@")
if [ ${#commands[@]} -eq 0 ]; then
  commands=(scripts/demo.sh scripts/test.sh)
  [ "$as_root" = ON ] || commands=("scripts/setup.sh --no-root" "${commands[@]}")
fi

checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
[[ "$folder/" != "$checkout"/* ]] || fail "'$folder' lies in the checkout (hint: give a folder elsewhere)"
[ "$(id -u)" -eq 0 ] || fail "debootstrap and chroot need root"
for tool in debootstrap unshare git; do
  command -v "$tool" >/dev/null || fail "$tool is missing (Debian and Ubuntu: apt-get install $tool)"
done

# From here on in a mount namespace of its own.
if [ "${CLIP_LORA_TRY_INSTALL:-}" != "$$" ]; then
  export CLIP_LORA_TRY_INSTALL=$$
  option=()
  [ "$as_root" = ON ] || option=(--no-root)
  exec unshare --mount -- bash "$0" "${option[@]}" "$folder" "${commands[@]}"
fi

bare="$folder/bare"
root="$folder/debian"
# This machine's sources of the suite, as lines of a sources.list.
# shellcheck disable=SC2016 # apt fills these in
sources="$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
  awk -v suite="$suite" '$3 == suite || index($3, suite "-") == 1' | sort -u)"

if [ ! -e "$bare.complete" ]; then
  say "debootstrap: $suite into $bare"
  rm -rf "$bare"
  mkdir -p "$folder"
  mirror="$(awk -v suite="$suite" '$3 == suite { print $2; exit }' <<<"$sources")"
  debootstrap --variant=minbase "$suite" "$bare" ${mirror:+"$mirror"} || fail "debootstrap failed, see above"
  touch "$bare.complete"
fi
rm -rf "$root"
cp -a "$bare" "$root"

for path in "${from_machine[@]}"; do
  [ ! -e "$path" ] || cp -rLT "$path" "$root$path"
done
[ -z "$sources" ] || echo "$sources" >"$root/etc/apt/sources.list"
apt-config dump | grep '^Acquire::' >"$root/etc/apt/apt.conf.d/99machine"
mount --bind /dev "$root/dev"
mount --bind /dev/pts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"

settings=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
while IFS= read -r name; do
  # A folder that only this machine has is of no use there.
  [[ "${!name}" == /* && ! -e "$root${!name}" ]] || settings+=("$name=${!name}")
done < <(compgen -e | grep -E '^(PIP_.*|.*_proxy|.*_PROXY)$' || true)

user=root
home=/root
if [ "$as_root" = OFF ]; then
  say "the administrator: installs g++, python3, git and ca-certificates"
  chroot "$root" env -i "${settings[@]}" DEBIAN_FRONTEND=noninteractive bash -c \
    'apt-get update -q && apt-get install -q -y --no-install-recommends g++ python3 git ca-certificates' ||
    fail "apt-get could not install the administrator's packages, see above"
  user=somebody
  home=/home/somebody
  chroot "$root" id "$user" >/dev/null 2>&1 || chroot "$root" useradd --create-home "$user"
fi

clone="$home/clip_lora"
rm -rf "${root:?}$clone"
git clone --quiet --no-hardlinks "$checkout" "$root$clone"
chroot "$root" chown -R "$user:" "$clone"

for command in "${commands[@]}"; do
  say "$user: $command"
  started=$SECONDS
  chroot --userspec="$user" "$root" env -i "${settings[@]}" "HOME=$home" "USER=$user" \
    bash -c "cd $clone && $command" </dev/null || fail "as $user: '$command' failed, see above"
  say "$user: $command: passed in $((SECONDS - started)) s"
done
