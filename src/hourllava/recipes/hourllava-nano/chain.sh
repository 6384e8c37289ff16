#!/usr/bin/env bash
# Makes nano from nothing: training data of MarathonWorld in data/world, then stages 0 to 4 in runs/.
#
#     GPUS=4 PROCESSES=60 bash src/hourllava/recipes/hourllava-nano/chain.sh
#
# Resumes if interrupted. Arguments are passed to every `hourllava train`. SHARE, VIDEO_SHARE and SEED_SHIFT change the
# data, see data.sh. STAGES="3 4" trains only these stages; START=nano begins the first of them with another checkpoint
# than that of the stage before.
set -euo pipefail
gpus=${GPUS:-1} world=data/world stages=${STAGES:-0 1 2 3 4} history=1 start=() # history: as in _nano.yaml
[ -z "${START:-}" ] || start=(--set "start.checkpoint=$START")
source "$(dirname "$0")/data.sh"

pictures() { # all that stage 0 reads; it measures lengths itself, because its model keeps all tokens
  [ -d $world/shards/text ] || "${hourllava[@]}" world pictures --out $world/pictures --processes "$processes" \
    --size-pixels 128 --images $((200000 / share)) --multi-images $((20000 / share)) --texts $((60000 / share))
  local sharding=()
  for name in text image images; do
    shards $name $world/pictures/jsons/$name.json "${name/text/image}" $world/pictures/images & sharding+=($!)
  done
  all "${sharding[@]}"
}

train() { # STAGE OPTION ...
  "${hourllava[@]}" train "recipes/hourllava-nano/s$1.yaml" --gpus "$gpus" "${start[@]}" "${@:2}"
  start=()
}

making=()
videos cards 1 50000 0.02-0.18 1 0 normal & making+=($!)
videos deck 6 16000 0.25-4 4 0 normal --needles 12 --tasks "$about_cards" & making+=($!)
videos acts 8 15000 0.33-1.25 3 0 hard --needles 0 --tasks "$about_actions" & making+=($!)
videos deeds 10 10000 1-12 3 0 hard --needles 0 --tasks "$about_actions" --questions 30 & making+=($!)
videos paint 9 10000 0.2-1 1 0 hard --needles 0 --painted & making+=($!)
videos short 2 20000 0.2-0.75 1 1 normal & making+=($!)
videos mid 4 12000 0.75-4 1 1 dense & making+=($!)
# Longer videos get more questions.
videos far 7 6000 4-15 2 0 normal --questions 40 & making+=($!)
videos long 5 2000 15-60 3 0 normal --questions 80 & making+=($!)
videos hours 11 400 60-180 3 0 normal --questions 80 & making+=($!)
pictures
for name in text image images; do
  apart $name & making+=($!)
done
if [[ $stages == 0* ]]; then # while videos are made
  train 0 "$@"
  stages=${stages#0}
fi
all "${making[@]}"
for stage in $stages; do
  train "$stage" "$@"
done
