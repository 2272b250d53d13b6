#!/usr/bin/env bash
# Fetches the CPU part of libtorch 2.11.0 from PyPI into ./libtorch, in the layout that torch-sys expects.
#
# PyPI's torch wheel is built for CUDA. The only CUDA libraries that its libtorch_cpu.so needs are libcudart and
# libcupti, so we take their two small wheels and leave out the 2 GiB of GPU code. The wheel's libtorch.so only pulls in
# libtorch_cuda.so; an empty library replaces it.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.11.0
dest=${1:-libtorch}
stamp="$dest/.complete-$TORCH"
[ -e "$stamp" ] && exit 0

case "$(uname -sm)" in
  "Linux x86_64") platforms=(--platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64) ;;
  "Linux aarch64") platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_25_aarch64 --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64) ;;
  *) echo "error: no libtorch recipe for $(uname -sm). Set LIBTORCH to your own libtorch $TORCH." >&2; exit 1 ;;
esac

wheels=$(mktemp -d); trap 'rm -rf "$wheels" "$dest.partial"' EXIT
echo "fetching libtorch $TORCH from PyPI (about 520 MB) ..." >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version 3.11 --implementation cp --abi cp311 --abi none --abi abi3 "${platforms[@]}" -d "$wheels" \
  "torch==$TORCH" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85

rm -rf "$dest.partial"; mkdir -p "$dest.partial/lib"
python3 - "$wheels" "$dest.partial" <<'PY'
import pathlib, shutil, sys, zipfile
wheels, dest = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
WANTED = {"libc10.so", "libtorch_cpu.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}
for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            base = name.rsplit("/", 1)[-1]
            if name.startswith("torch/include/") and not name.endswith("/"):
                target = dest / name.removeprefix("torch/")
            elif base in WANTED:
                target = dest / "lib" / base
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
missing = WANTED - {p.name for p in (dest / "lib").iterdir()}
if missing:
    sys.exit(f"error: the wheels lack {sorted(missing)}")
PY
echo 'void caco_empty_libtorch(void) {}' | "${CC:-cc}" -shared -fPIC -x c - -o "$dest.partial/lib/libtorch.so"
rm -rf "$dest"; mv "$dest.partial" "$dest"; touch "$stamp"
echo "libtorch $TORCH is in $dest" >&2
