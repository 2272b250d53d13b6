#!/usr/bin/env bash
# Runs all tests, with cargo-nextest where it is installed and with cargo test elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
# The tests run the real programs, of which cargo builds only those of the package that it tests.
cargo build --release --quiet --bins
if cargo nextest --version >/dev/null 2>&1; then
  exec cargo nextest run --release --no-fail-fast "$@"
fi
exec cargo test --release --no-fail-fast "$@"
