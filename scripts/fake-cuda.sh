#!/usr/bin/env bash
# Builds the fake CUDA of tests/fake_cuda into target/fake-cuda, or into the folder named.
#
#   torch/lib/   the libraries of PyTorch's wheel that run on a GPU, what they need of libtorch, and the fake of each of
#                NVIDIA's libraries
#   driver/      the fake driver; without this folder in LD_LIBRARY_PATH there is none
#
# PyPI's wheel is fetched for its two CUDA libraries, and two small ones for NVIDIA's headers. None of the two gigabytes of
# NVIDIA's own libraries is needed: the linker gets a stand-in for each, with every symbol that PyTorch imports. Those that
# tests/fake_cuda/cuda does not implement end the program and name themselves.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

TORCH=2.11.0
dest=${1:-target/fake-cuda}
source=tests/fake_cuda/cuda
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "error: the fake CUDA is for Linux on x86-64" >&2; exit 1; }
[ -e libtorch/lib/libtorch_cpu.so ] || { echo "error: libtorch is not there; run \`make libtorch\` first" >&2; exit 1; }

fetch() {
  local wheels
  wheels=$(mktemp -d)
  echo "fetching the CUDA half of PyTorch $TORCH from PyPI (about 530 MB) ..." >&2
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 \
    --implementation cp --abi cp311 --abi none --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 -d "$wheels" "torch==$TORCH" nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88
  rm -rf "$dest" "$dest.partial"; mkdir -p "$dest.partial"
  python3 - "$wheels" "$dest.partial" <<'PY'
import pathlib, shutil, sys, zipfile
wheels, dest = map(pathlib.Path, sys.argv[1:])
WANTED = {"torch/version.py", "torch/lib/libtorch_cuda.so", "torch/lib/libc10_cuda.so"}
for wheel in wheels.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            headers = name.startswith("nvidia/cu13/include/") and not name.endswith("/")
            if name not in WANTED and not headers:
                continue
            target = dest / (name.removeprefix("nvidia/cu13/") if headers else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
PY
  rm -rf "$wheels"
  # A header of libcu++, which is in another wheel; host code does not use it.
  mkdir -p "$dest.partial/include/nv"
  for macro in NV_IF_TARGET NV_IF_ELSE_TARGET NV_DISPATCH_TARGET; do echo "#define $macro(...)"; done > "$dest.partial/include/nv/target"
  mv "$dest.partial" "$dest"
}

[ -e "$dest/torch/version.py" ] || fetch
lib=$dest/torch/lib
for name in libtorch_cpu.so libc10.so libgomp.so.1 libtorch.so libcupti.so.13; do
  ln -sf "$PWD/libtorch/lib/$name" "$lib/$name"
done

# The symbols that PyTorch's libraries import from a library of NVIDIA's: those with its version, and for libraries
# without versions those with a prefix.
imported() { nm -D --undefined-only "$lib/libtorch_cuda.so" "$lib/libc10_cuda.so" | awk '{print $2}' | sort -u; }

# stand_in SONAME PREFIX [FILE…]: links a fake from its sources, and functions that end the program for what they lack.
stand_in() {
  local soname=$1 prefix=$2 build objects=() file
  shift 2
  build=$dest/build/$soname
  mkdir -p "$build"
  for file in "$@"; do
    "${CC:-cc}" -O1 -fPIC -Wall -Wno-unused-parameter -I"$dest/include" -c "$source/$file" -o "$build/$file.o"
    objects+=("$build/$file.o")
  done
  { imported | sed -n "s/@$soname$//p"; [ -z "$prefix" ] || imported | grep "^$prefix" | grep -v @ || true; } | sort -u > "$build/wanted"
  { [ ${#objects[@]} -eq 0 ] || nm --defined-only "${objects[@]}" | awk 'NF == 3 {print $3}'; } | sort -u > "$build/there"
  {
    echo '#include <stdio.h>'
    echo '#include <stdlib.h>'
    echo 'static void missing(const char *name) { fprintf(stderr, "fake CUDA: %s is not implemented\n", name); abort(); }'
    comm -23 "$build/wanted" "$build/there" | sed 's/.*/void &(void) { missing("&"); }/'
  } > "$build/missing.c"
  echo "$soname { *; };" > "$build/version"
  local needs=()
  [ "$soname" = libcudart.so.13 ] || needs=("$lib/libcudart.so.13")
  "${CC:-cc}" -O1 -shared -fPIC -Wl,-soname,"$soname" -Wl,--version-script,"$build/version" "$build/missing.c" "${objects[@]}" \
    -Wl,--no-as-needed "${needs[@]}" -o "$build/$soname" -ldl -lpthread
  mv "$build/$soname" "$lib/$soname"
}

stand_in libcudart.so.13 "" record.c runtime.c
stand_in libcublas.so.13 "" blas.c
stand_in libcublasLt.so.13 "" blaslt.c
stand_in libcudnn.so.9 "" dnn.c
stand_in libcusparse.so.12 ""
stand_in libcufft.so.12 ""
stand_in libcusparseLt.so.0 cusparseLt
stand_in libnccl.so.2 nccl nccl.c
stand_in libcurand.so.10 curand
stand_in libcufile.so.0 cuFile
stand_in libtorch_nvshmem.so nvshmem
mkdir -p "$dest/driver"
stand_in libcuda.so.1 "" driver.c
mv "$lib/libcuda.so.1" "$dest/driver/libcuda.so.1"
echo "the fake CUDA is in $dest" >&2
