#!/usr/bin/env bash
# Checks the GPU's path on a machine that has python3, PyTorch 2.11 and a GPU, and nothing else: no network, no compiler.
#
#   scripts/gpu-check.sh pack [DIR]     here, after `make test`: puts all it needs into DIR (gpu-check), about 30 MiB
#   DIR/gpu-check.sh [--device D]       there: checks, for ten minutes at most; again to go on where it ended
#
# Every check prints PASS, FAIL or SKIP, its name, what was found and the bar. A report of all (report.json) and the logs
# are in DIR/out. A failure or a timeout ends only its own check. Remove DIR/out to begin from the start.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

pack() {
  local dest=${1:-gpu-check} root program tests
  root=$(dirname "$here")
  # The newest build of the unit tests of `learn`, which take their device from CACO_TEST_DEVICE.
  tests=$(ls -t "$root"/target/release/deps/caco_learn-* | grep -v '\.' | head -1)
  (cd "$root" && cargo build --release --quiet --workspace --example replay)
  mkdir -p "$dest/cases"
  for program in caco caco-worker examples/replay; do
    strip -o "$dest/${program##*/}" "$root/target/release/$program"
  done
  strip -o "$dest/learn-tests" "$tests"
  cp -r "$root"/tests/parity/*/ "$root"/tests/reference/cases/*/ "$dest/cases/"
  cp "$root/scripts/gpu-check.sh" "$root/scripts/gpu_check.py" "$root/benches/step.py" "$dest/"
  local kib
  kib=$(du -sk "$dest" | cut -f1)
  [ "$kib" -le $((60 << 10)) ] || { echo "error: $dest takes $((kib >> 10)) MiB, more than 60" >&2; exit 1; }
  echo "copy $dest ($((kib >> 10)) MiB) to the machine with the GPU, and run $dest/gpu-check.sh there" >&2
}

if [ "${1:-}" = pack ]; then
  shift
  pack "$@"
else
  exec python3 "$here/gpu_check.py" "$@"
fi
