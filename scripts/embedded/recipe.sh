#!/usr/bin/env bash
# The network from pictures to bundles of three seeds. Stop it at any time; called again, it goes on where it was.
#
#   scripts/embedded/recipe.sh DATA [OUT]
#
# DATA has ucm, aid, rsscn7, cifar10 and tiny_imagenet. Millions of views: PRETRAIN, AERIAL, TASK in the environment.
# AMP=1 computes in bfloat16, where speed.py says that it is faster.
set -euo pipefail
data=$1 out=${2:-runs/embedded}
python=${PYTHON:-python} seeds=${SEEDS:-0 1 2} device=${DEVICE:-cpu} threads=${THREADS:-2}
here=$(dirname "$0") split=calibration/ucm_split.json
ucm=(--data "$data/ucm" --split "$split" --device "$device")

pretrain() {
  "$python" "$here/pretrain.py" --packed "$out/packed" --cache "$out" --device "$device" --threads "$threads" \
    --task-teacher lite0 --views "${VIEWS:-8}" ${AMP:+--amp} "$@"
}

"$python" "$here/pack.py" --data "$data" --split "$split" --packed "$out/packed"

# The photographs first: the shipped network, at 64 px, learns what EfficientNet-Lite0 says of them. PRETRAIN=0 for none.
first=plain_64=${PRETRAIN:-4.2},
[ "$first" != plain_64=0, ] || first=
pretrain --out "$out" --init embedded --plan "${first}aerial_plain_128=${AERIAL:-0.18}"

# The last stages, once a seed.
for seed in $seeds; do
  run=$out/seed_$seed
  pretrain --out "$run" --seed "$seed" --init "$out/aerial_plain_128.safetensors" \
    --plan "task_plain_128=${TASK:-0.03}"
  if [ ! -e "$run/exits/result.json" ]; then
    "$python" "$here/export.py" --packed "$out/packed" --weights "$run/task_plain_128.safetensors" \
      --log "$run/log.jsonl" --to "$run/backbone.safetensors"
    "$python" -m pi_dynn.cli train exits "${ucm[@]}" --out "$run/exits" --resume --seed "$seed" \
      --init "$run/backbone.safetensors" --all-views --tolerated-loss 0
  fi
done
