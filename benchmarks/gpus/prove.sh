#!/usr/bin/env bash
# The proof on a machine that reaches no package registry, with the folder that `pack.sh` made. In the repository's root:
#
#   OUT=results bash benchmarks/gpus/prove.sh FOLDER [arguments of `python -m benchmarks.gpus`]
#
# Writes $OUT/doctor.txt, gpus.json (after each part) and gpus.txt. Changes no setting of the card, installs nothing
# outside of $SITE. --deadline does not count the seconds of the installation and the doctor, a minute at most.
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
# a build with CUDA has no OpenCL; without PyPI's, that part is left out
opencl=()
put "$site-opencl" "$folder"/opencl/*.whl && opencl=(--opencl "$site-opencl")
export PYTHONPATH=$PWD:$site

# the machine's own NCCL if it has one
nccl=$(python3 -c 'import nvidia.nccl; print(*nvidia.nccl.__path__)' 2>/dev/null) && nccl=$nccl/lib || nccl=$folder/nccl
export LD_LIBRARY_PATH=$nccl:${LD_LIBRARY_PATH:-}

timeout 60 python3 -m gpusched doctor 2>&1 | tee "$out/doctor.txt" || true
python3 -m benchmarks.gpus --json "$out/gpus.json" ${opencl[@]+"${opencl[@]}"} "$@" 2>&1 | tee "$out/gpus.txt"
