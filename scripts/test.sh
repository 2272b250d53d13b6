#!/usr/bin/env bash
# Runs all tests, with cargo-nextest where it is installed and with cargo test elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
if cargo nextest --version >/dev/null 2>&1; then
  exec cargo nextest run --release --no-fail-fast "$@"
fi
exec cargo test --release --no-fail-fast "$@"
