#!/usr/bin/env bash
# Everything that needs a GPU, in at most nine minutes on one GPU. GPU time is rare, so this runs first when there is some.
#
#     benchmarks/gpu_slot.sh OUT            measure; OUT gets one file per part as soon as the part has written a line
#     benchmarks/gpu_slot.sh OUT --small    the same commands in their smallest form, on a CPU, to test this script
#
# Parts: GPU tests; kernels relative to copy speed; a training step at 256 px (fp16 and bf16, batch 16 and 64); the cost
# of every term with a warm cache (targets: view seen 8 %, view clean 3 %); then, in the time left, a run of the
# baseline and of the default at 64 px with their sample grids. A part that fails or runs out of time does not stop the
# others. OUT/summary.txt lists each part with its exit status (124: out of time, which a training
# run survives) and seconds. The script fails if another part failed.
#
# Environment: PYTHON (default: .venv/bin/python, else python3), DATA (default: demo), TEACHER (default: demo).
set -u
cd "$(dirname "$0")/.." || exit 1
OUT=${1:?usage: benchmarks/gpu_slot.sh OUT [--small]}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 1
rm -f "$OUT"/{summary,gpu_tests,kernels,step,kd_overhead,training}.txt
SMALL=${2:-}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
DATA=${DATA:-demo}
TEACHER=${TEACHER:-demo}
DEADLINE=$((SECONDS + 525)) # 15 seconds are left for the last save
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
export PYTHONUNBUFFERED=1

# part NAME SECONDS COMMAND...: run a command for at most SECONDS; append its output to OUT/NAME.txt as it comes
# (what follows a colon in NAME is for the summary only).
part() {
    local name=$1 limit=$2 left=$((DEADLINE - SECONDS)) begun=$SECONDS status
    local file=$OUT/${name%%:*}.txt
    shift 2
    [ "$SMALL" = --small ] && limit=$((3 * limit)) # a CPU may be busy, and costs nothing
    [ "$limit" -gt "$left" ] && limit=$left
    if [ "$limit" -lt 5 ]; then
        echo "$name: no time left" | tee -a "$OUT/summary.txt"
        return
    fi
    echo "\$ $*" >>"$file"
    timeout --signal=TERM --kill-after=15 "$limit" "$@" >>"$file" 2>&1
    status=$?
    echo "$name: status $status, $((SECONDS - begun)) s of at most $limit: $*" | tee -a "$OUT/summary.txt"
}

# train NAME SECONDS FLAGS...: a run whose sample grid becomes OUT/NAME.png; SIGTERM at its limit makes it save first.
train() {
    local name=$1 limit=$2
    shift 2
    part "training:$name" "$limit" "$PYTHON" train.py --cfg=demo --data="$DATA" --outdir="$SCRATCH/$name" "${RUN[@]}" "$@"
    local grid
    grid=$(ls "$SCRATCH/$name"/*/fakes0*.png 2>/dev/null | tail -n 1)
    [ -n "$grid" ] && cp "$grid" "$OUT/$name.png"
}

"$PYTHON" -c 'import torch; print("torch", torch.__version__, "on", torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")' \
    2>&1 | tee "$OUT/summary.txt"
if [ "$SMALL" = --small ]; then
    TESTS=(env KD_TEST_DEVICE=cpu "$PYTHON" -m pytest -n 0 -m gpu tests/gpu -k the_official_networks)
    SIZE=(--device=cpu --resolution=16 --cbase=64 --rounds=1)
    STEP=("${SIZE[@]}" --cmax=16)
    PRECISIONS=(bf16)
    BATCHES=(4)
    OVERHEAD=("${SIZE[@]}" --batch=4 --teacher=demo)
    KERNELS=(--device=cpu)
    RUN=(--device=cpu --resolution=16 --cbase=64 --cmax=16 --batch=4 --kimg=0.008 --tick=0.004 --snap=1)
else
    TESTS=("$PYTHON" -m pytest -n 0 -m gpu tests/gpu)
    STEP=(--resolution=256 --num-fp16-res=4 --rounds=5)
    PRECISIONS=(fp16 bf16)
    BATCHES=(16 64)
    OVERHEAD=(--resolution=256 --batch=16 --rounds=10)
    KERNELS=()
    RUN=(--resolution=64 --cbase=8192 --cmax=256 --batch=64 --kimg=60 --tick=4 --snap=5 --metrics=none)
fi
part gpu_tests 130 "${TESTS[@]}"
part kernels 60 "$PYTHON" -m benchmarks.kernels "${KERNELS[@]}"
for batch in "${BATCHES[@]}"; do
    for precision in "${PRECISIONS[@]}"; do
        part step 35 "$PYTHON" -m benchmarks.step "${STEP[@]}" --batch="$batch" --precision="$precision"
    done
done
part kd_overhead 80 "$PYTHON" -m benchmarks.kd_overhead "${OVERHEAD[@]}"
train baseline $(((DEADLINE - SECONDS) / 2)) --kd=none
train default $((DEADLINE - SECONDS)) --kd="$TEACHER"
! grep -E ': (status|no time)' "$OUT/summary.txt" | grep -vE ': status 0,|^training:[a-z]*: status 124,' | grep -q .
