#!/usr/bin/env bash
# Ablations of the method on nano: makes data in data/ablations, then runs nano-ablations.yaml.
#
#     PROCESSES=60 bash benchmarks/nano-ablations.sh --devices 0,1,2,3 --at-once 3
#
# Resumes if interrupted. Arguments are passed to ablations.py. SHARE=100 makes a hundredth of the data, for a trial;
# DATA=only ends when the data is complete.
set -euo pipefail
here=$(dirname "$0") world=data/ablations
source "$here/../src/hourllava/recipes/hourllava-nano/data.sh"
source "$here/ablation-videos.sh"

several() { # NAME SEED ...: records of 20, 5 and 1 questions
  for number in 20 5 1; do
    videos "$1-$number" "${@:2}" --questions $number # the last of two equal options counts
  done
  conversations "$1-20"
  conversations "$1-5"
}

conversations() { # NAME: the same shards, measured for all questions of a record in one sample
  local folder=$world/shards/$1-conversation
  [ -f "$folder/lengths.json" ] && return
  rm -rf "$folder" "$folder.part"
  cp -r "$world/shards/$1" "$folder.part"
  rm "$folder.part"/lengths.*
  mv "$folder.part" "$folder"
  lengths "$1-conversation" --questions conversation
}

ablation_videos several
[ "${DATA:-}" = only ] || "$python" "$here/ablations.py" "$here/nano-ablations.yaml" "$@"
