#!/usr/bin/env bash
# Runs all tests, with cargo-nextest if it is installed and with cargo test otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
# The tests run the compiled programs, and cargo builds only those of the package under test.
cargo build --release --quiet --bins
if cargo nextest --version >/dev/null 2>&1; then
  exec cargo nextest run --release --no-fail-fast "$@"
fi
exec cargo test --release --no-fail-fast "$@"
