#!/usr/bin/env bash
# The proof on a machine that reaches no package registry, with the folder that `pack.sh` made. In the repository's root:
#
#   OUT=results bash benchmarks/gpus/prove.sh FOLDER [arguments of `python -m benchmarks.gpus`]
#
# Writes $OUT/doctor.txt, gpus.json (after each part) and gpus.txt. Changes no setting of the card, installs nothing
# outside of $SITE.
set -euo pipefail

folder=$(cd "${1:?usage: prove.sh FOLDER [ARGUMENT …]}" && pwd)
shift
site=${SITE:-$(mktemp -d)}
out=${OUT:-gpu-proof}
mkdir -p "$out"

put() { # SITE WHEEL…
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$@"
}
put "$site" "$folder"/packages/*.whl "$folder"/cuda/*.whl
put "$site-opencl" "$folder"/opencl/*.whl
export PYTHONPATH=$PWD:$site SITE_OPENCL=$site-opencl

# LightGBM's CUDA build is linked with NCCL, which a single GPU never calls: where the machine has none, an empty one
# that has the names does.
nccl=$(python3 -c 'import nvidia.nccl; print(*nvidia.nccl.__path__)' 2>/dev/null || true)
if [ -n "$nccl" ]; then
    nccl=$nccl/lib
else
    nccl=$site-nccl
    mkdir -p "$nccl"
    library=$(find "$site/lightgbm" -name 'lib_lightgbm.so' | head -n 1)
    nm -D --undefined-only "$library" | sed -n 's/.* U \(nccl[A-Za-z]*\)$/int \1(void) { return 1; }/p' |
        cc -shared -fPIC -x c -Wl,-soname,libnccl.so.2 -o "$nccl/libnccl.so.2" -
fi
export LD_LIBRARY_PATH=$nccl:${LD_LIBRARY_PATH:-}

python3 -m gpusched doctor 2>&1 | tee "$out/doctor.txt" || true
python3 -m benchmarks.gpus --json "$out/gpus.json" "$@" 2>&1 | tee "$out/gpus.txt"
