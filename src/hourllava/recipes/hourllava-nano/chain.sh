#!/usr/bin/env bash
# Makes nano from nothing: training data of MarathonWorld in data/world, then stages 0 to 4 in runs/.
#
#     GPUS=4 PROCESSES=60 bash src/hourllava/recipes/hourllava-nano/chain.sh
#
# Resumes if interrupted. Arguments are passed to every `hourllava train`. SHARE, VIDEO_SHARE and SEED_SHIFT change the
# data, see data.sh. STAGES="3 4" trains only these stages; START=nano begins the first of them with another checkpoint
# than that of the stage before.
set -euo pipefail
gpus=${GPUS:-1} world=data/world stages=${STAGES:-0 1 2 3 4} start=()
[ -z "${START:-}" ] || start=(--set "start.checkpoint=$START")
source "$(dirname "$0")/data.sh"

pictures() {
  [ -f $world/shards/images/lengths.json ] && return
  "${hourllava[@]}" world pictures --out $world/pictures --processes "$processes" --size-pixels 128 \
    --images $((200000 / share)) --multi-images $((20000 / share)) --texts $((60000 / share))
  local making=()
  for name in text image images; do
    (shards $name $world/pictures/jsons/$name.json "${name/text/image}" $world/pictures/images && lengths $name) &
    making+=($!)
  done
  all "${making[@]}"
}

train() { # STAGE OPTION ...
  "${hourllava[@]}" train "recipes/hourllava-nano/s$1.yaml" --gpus "$gpus" "${start[@]}" "${@:2}"
  start=()
}

making=()
videos cards 1 50000 0.02-0.18 1 0 normal 128 & making+=($!)
videos deck 6 16000 0.25-4 4 0 normal 64 --needles 12 --tasks "$about_cards" & making+=($!)
videos acts 8 15000 0.33-1.25 3 0 hard 64 --needles 0 --tasks "$about_actions" & making+=($!)
videos deeds 10 10000 1-6 3 0 hard 64 --needles 0 --tasks "$about_actions" --questions 30 & making+=($!)
videos paint 9 10000 0.2-1 1 0 hard 64 --needles 0 --painted & making+=($!)
videos short 2 20000 0.2-0.75 1 1 normal 64 & making+=($!)
if [[ $stages == *2* ]]; then # only stage 2 reads them: larger than nano's input, like real videos
  videos large 3 6000 0.2-0.75 1 0 normal 128 & making+=($!)
fi
videos mid 4 12000 0.75-4 1 1 dense 64 & making+=($!)
# Longer videos get more questions.
videos far 7 6000 4-15 2 0 normal 64 --questions 40 & making+=($!)
videos long 5 2000 15-60 3 0 normal 64 --questions 80 & making+=($!)
pictures
if [[ $stages == 0* ]]; then # while videos are made
  train 0 "$@"
  stages=${stages#0}
fi
all "${making[@]}"
for stage in $stages; do
  train "$stage" "$@"
done
