#!/usr/bin/env bash
# Packs a folder for `prove.sh` on a machine that has an NVIDIA GPU and reaches no package registry:
#
#   bash benchmarks/gpus/pack.sh FOLDER
#
# PYTHON_VERSION=3.12   CPython of that machine (x86-64)       ARCH=90-real   its GPU: 90 H100, 89 L40S, 86 A6000
# CUDA_WHEEL=FILE       LightGBM with CUDA, if it is built already: otherwise built here, 10 to 15 minutes of CPU with nvcc
set -euo pipefail

folder=${1:?usage: pack.sh FOLDER}
version=${PYTHON_VERSION:-3.12}
arch=${ARCH:-90-real}
lightgbm=4.7.0
mkdir -p "$folder"/{packages,opencl,cuda,nccl}

# What gpusched and the proof import there; numpy, pandas and scipy are taken to be on the machine.
python3 -m pip download -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    -d "$folder/packages" anyio argcomplete idna linkify-it-py markdown-it-py mdit-py-plugins mdurl msgspec narwhals \
    nvidia-ml-py platformdirs pygments rich TA-Lib textual typing-extensions uc-micro-py
python3 -m pip download -q --no-deps --only-binary=:all: -d "$folder/opencl" "lightgbm==$lightgbm"

if [ -n "${CUDA_WHEEL:-}" ]; then
    cp "$CUDA_WHEEL" "$folder/cuda/"
else
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    python3 -m venv "$build/venv"
    "$build/venv/bin/pip" install -q 'cmake>=3.28' ninja nvidia-nccl-cu13
    nccl=$("$build/venv/bin/python" -c 'import nvidia.nccl; print(*nvidia.nccl.__path__)')
    ln -sf libnccl.so.2 "$nccl/lib/libnccl.so" # the wheel has the versioned name only, which CMake does not look for
    # CPATH: LightGBM's C API includes nccl.h, and its CMake target is not told where that is.
    PATH="${CUDA_HOME:-/usr/local/cuda}/bin:$build/venv/bin:$PATH" CPATH="$nccl/include" CMAKE_BUILD_PARALLEL_LEVEL=2 \
        nice -n 19 "$build/venv/bin/pip" wheel -q --no-deps --no-binary lightgbm -w "$folder/cuda" \
        -C cmake.define.USE_CUDA=ON -C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$arch" \
        -C cmake.define.BUILD_WITH_SHARED_NCCL=ON -C "cmake.define.NCCL_ROOT=$nccl" "lightgbm==$lightgbm"
fi

# The CUDA build is linked with NCCL, which a single GPU never calls: an empty library that has the names will do there.
library=$(mktemp)
python3 - "$folder"/cuda/*.whl >"$library" <<'PY'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    (name,) = (name for name in wheel.namelist() if name.endswith("/lib_lightgbm.so"))
    sys.stdout.buffer.write(wheel.read(name))
PY
nm -D --undefined-only "$library" | sed -n 's/.* U \(nccl[A-Za-z]*\)$/int \1(void) { return 1; }/p' |
    cc -shared -fPIC -x c -Wl,-soname,libnccl.so.2 -o "$folder/nccl/libnccl.so.2" -
rm -f "$library"
du -sh "$folder"
