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
  lengths "$1-conversation" conversation
}

making=()
several cards 101 1600 0.02-0.18 1 0 normal 128 & making+=($!)
several deck 106 2000 0.25-4 4 0 normal 64 --needles 12 --tasks "$about_cards" & making+=($!)
several short 102 1600 0.2-0.75 1 1 normal 64 & making+=($!)
several mid 104 1200 0.75-4 1 1 dense 64 & making+=($!)
several far 107 600 4-15 2 0 normal 64 & making+=($!)
all "${making[@]}"
[ "${DATA:-}" = only ] || python "$here/ablations.py" "$here/nano-ablations.yaml" "$@"
