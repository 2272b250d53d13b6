#!/usr/bin/env bash
# Runs all tests, or those of the packages named, with cargo-nextest where it is installed and with cargo test elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
# The tests run the real programs. One build of everything: cargo would build dependencies twice for programs without the
# features that tests add.
cargo build --release --quiet --workspace --bins --tests
if cargo nextest --version >/dev/null 2>&1; then
  exec cargo nextest run --release --no-fail-fast --workspace ${1:+-E "$(printf 'package(%s) | ' "$@")none()"}
elif [ $# -gt 0 ]; then
  exec cargo test --release --no-fail-fast "${@/#/--package=}"
fi
exec cargo test --release --no-fail-fast --workspace
