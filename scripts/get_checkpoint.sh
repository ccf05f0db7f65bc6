#!/usr/bin/env bash
# Fetches a checkpoint that OpenAI published, for clip_lora to find by its name.
set -euo pipefail

base_url=https://openaipublic.azureedge.net/clip/models

usage() {
  cat <<'TEXT'
Usage: scripts/get_checkpoint.sh NAME [--out DIR] [--url URL] [--sha256 SUM]

Fetches OpenAI's CLIP of that NAME: ViT-B/32, ViT-B/16, ViT-L/14 or ViT-L/14@336px (0.3 to 0.9 GB). An interrupted
download goes on where it stopped. A file whose SHA-256 is not the published one is removed.

  --out DIR     folder to put it into; by default $CLIP_LORA_CHECKPOINTS, else ~/.cache/clip
  --url URL     take the file from elsewhere
  --sha256 SUM  expect this sum instead of the published one
TEXT
}

say() { printf '[get_checkpoint] %s\n' "$*"; }
fail() {
  printf '[get_checkpoint] error: %s\n' "$*" >&2
  exit 1
}
fail_usage() {
  printf '[get_checkpoint] error: %s\n' "$*" >&2
  usage >&2
  exit 2
}

# The published sums; OpenAI's addresses contain them too.
published_sum() {
  case "$1" in
    ViT-B/32) echo 40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af ;;
    ViT-B/16) echo 5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f ;;
    ViT-L/14) echo b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836 ;;
    ViT-L/14@336px) echo 3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02 ;;
    *) fail_usage "unknown checkpoint '$1': expected ViT-B/32, ViT-B/16, ViT-L/14 or ViT-L/14@336px" ;;
  esac
}

has_sum() { [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$sum" ]; }

fetch() {
  local status=0
  curl --fail --location --show-error --continue-at - --output "$part" "$url" || status=$?
  if [ "$status" -eq 33 ] || [ "$status" -eq 36 ]; then # the server cannot go on where it stopped
    say "starting over: the server cannot resume"
    rm -f "$part"
    status=0
    curl --fail --location --show-error --output "$part" "$url" || status=$?
  fi
  [ "$status" -eq 0 ] || fail "curl could not fetch $url (exit code $status), see above; run this again to go on"
}

name=
out="${CLIP_LORA_CHECKPOINTS:-${HOME:-.}/.cache/clip}"
url=
sum=
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      usage
      exit 0
      ;;
    --out | --url | --sha256)
      [ $# -ge 2 ] || fail_usage "$1 wants a value"
      case "$1" in
        --out) out="$2" ;;
        --url) url="$2" ;;
        --sha256) sum="$2" ;;
      esac
      shift
      ;;
    -*) fail_usage "unknown flag '$1'" ;;
    *)
      [ -z "$name" ] || fail_usage "unexpected argument '$1'"
      name="$1"
      ;;
  esac
  shift
done
[ -n "$name" ] || fail_usage "the checkpoint's name is missing"
published="$(published_sum "$name")" || exit $?
sum="${sum:-$published}"
file="${name//[\/@]/-}.pt"
url="${url:-$base_url/$published/$file}"
part="$out/$file.part"

command -v curl >/dev/null || fail "curl is missing (Debian and Ubuntu: apt-get install curl)"
if has_sum "$out/$file"; then
  say "$out/$file: there"
  exit 0
fi
[ ! -e "$out/$file" ] || fail "$out/$file is there, but its SHA-256 is not $sum: remove it to fetch it again"
mkdir -p "$out"
has_sum "$part" || fetch
if ! has_sum "$part"; then
  got="$(sha256sum <"$part" | cut -d' ' -f1)"
  rm -f "$part"
  fail "the file from $url has SHA-256 $got, expected $sum: removed"
fi
mv "$part" "$out/$file"
say "$out/$file: fetched, SHA-256 $sum"
