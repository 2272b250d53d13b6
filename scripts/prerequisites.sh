#!/usr/bin/env bash
# Checks for the tools that no package registry provides, and names the command that installs what is missing.
set -u

missing=0
need() { # what, test command, how to install
  if ! eval "$2" >/dev/null 2>&1; then
    echo "error: $1 is missing" >&2
    echo "  install it with: $3" >&2
    missing=1
  fi
}

if command -v apt-get >/dev/null 2>&1; then install="apt-get install"
elif command -v dnf >/dev/null 2>&1; then install="dnf install"
else install="your package manager's install command for"; fi

need "a Rust toolchain of 1.89 or newer (cargo)" 'v=$(cargo --version | cut -d" " -f2) && [ "$(printf "1.89.0\n$v\n" | sort -V | head -1)" = 1.89.0 ]' \
  "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh   (or: rustup update)"
need "a C++ compiler (c++)" 'command -v c++' "$install g++"
need "a C compiler (cc)" 'command -v cc' "$install gcc"
if [ -z "${LIBTORCH:-}" ] && [ -z "${LIBTORCH_USE_PYTORCH:-}" ] && [ ! -e libtorch/.complete-2.11.0 ]; then
  need "python3" 'command -v python3' "$install python3"
  need "pip for python3 (it fetches libtorch)" 'python3 -m pip --version' "$install python3-pip"
fi
exit $missing
