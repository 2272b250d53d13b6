#!/usr/bin/env bash
# Fuzzes every parser: scripts/fuzz.sh [SECONDS] [TARGET…]. Needs a nightly toolchain and `cargo install cargo-fuzz`.
#
# Each target starts from valid files: those in tests/formats and pipelines, and generated ones. Crashing inputs are
# kept in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-120}; shift || true
targets=${*:-mat annotations shards imagenet decode index pipeline views unpack}

python3 fuzz/seeds.py
cargo +nightly fuzz --version >/dev/null
crashed=()
for target in $targets; do
  printf '== %s\n' "$target"
  log=$(mktemp)
  cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=4096 \
    -print_final_stats=1 >"$log" 2>&1 || { crashed+=("$target"); tail -n 40 "$log"; }
  grep -E 'stat::(number|average|peak)|slow-unit' "$log" || true
  rm -f "$log"
done
[ ${#crashed[@]} -eq 0 ] || { echo "crashed: ${crashed[*]}" >&2; exit 1; }
