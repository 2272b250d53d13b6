#!/usr/bin/env bash
# Compares the results of a small experiment on this CPU with those on emulated ones: every object must be the same.
#
#   scripts/portable.sh [CPU…]       CPUs as `qemu-x86_64 -cpu help` lists them
#
# Needs the built programs, and qemu-x86_64 (Debian's qemu-user), which emulates AVX2 but not AVX-512.
set -euo pipefail
cd "$(dirname "$0")/.."
cpus=${*:-Haswell-v4 EPYC-Milan}

command -v qemu-x86_64 >/dev/null || { echo "error: qemu-x86_64 is not installed" >&2; echo "help: apt-get install qemu-user" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# caco starts the worker beside it.
cp target/release/caco "$folder/caco"
export CACO_KEYS=$folder/keys WORKER=$PWD/target/release/caco-worker
printf '#!/bin/sh\nexec qemu-x86_64 -cpu "$CPU" "$WORKER" "$@"\n' > "$folder/caco-worker"
chmod +x "$folder/caco-worker"

# Every kind of stage whose results must be portable. The channels of one network fill the vectors of batch norm's kernels,
# those of the other do not.
run() {
  small "$1" "$2" 16 pretrain/multicrop linear/short knn/short transfer/short
  small "$1" "$2" 8 pretrain/short
  (cd "$folder/$2/objects" && find . -type f | sort) > "$folder/$2.objects"
}

small() {
  caco=$1 store=$2 width=$3
  shift 3
  "$caco" run pipelines/tiny.ron --quiet --jobs 1 --cache "$folder/$store" "$@" \
    --set "common.model=(arch: ResNet18, width: $width, stem: Cifar, hidden: 32, dim: 16)" \
    --set common.batch=16 --set common.bank_size=48 --set pretrain.epochs=1 --set pretrain.warmup=0 \
    --set shapes.train=64 --set shapes.test=32 --set glyphs.train=48 --set glyphs.test=24 \
    --set linear.epochs=1 --set transfer.strengths=2 >/dev/null
}

run target/release/caco here
for cpu in $cpus; do
  CPU=$cpu run "$folder/caco" "$cpu"
  if ! cmp -s "$folder/here.objects" "$folder/$cpu.objects"; then
    echo "error: $cpu gives other results than this CPU" >&2
    diff "$folder/here.objects" "$folder/$cpu.objects" | head >&2
    exit 1
  fi
  echo "$cpu: $(wc -l < "$folder/here.objects") objects are equal"
done
