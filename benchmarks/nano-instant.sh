#!/usr/bin/env bash
# The experiment on recall tokens: makes data in data/ablations, then runs nano-instant.yaml.
#
#     STEPS=300 PROCESSES=16 bash benchmarks/nano-instant.sh --at-once 4 --results found --seconds 500
#
# Resumes if interrupted; with results.json of an earlier run in the folder of --results, also on another machine.
# Arguments are passed to ablations.py. Each number of STEPS has its own folder runs/instant-STEPS. SHARE=100 makes a
# hundredth of the data, for a trial; DATA=only ends when the data is complete; PLAN=FILE runs another plan.
set -euo pipefail
here=$(dirname "$0") world=data/ablations steps=${STEPS:-300}
published=$world/nano-published # the last weights of nano in the published way, commit aeae59b
source "$here/../src/hourllava/recipes/hourllava-nano/data.sh"
source "$here/ablation-videos.sh"

twenty() { # NAME SEED ...: records of 20 questions
  videos "$1-20" "${@:2}"
}

if [ ! -d $published ]; then
  rm -rf $published.part && mkdir -p $published.part
  git -C "$here/.." archive aeae59b:src/hourllava/model/nano | tar -x -C $published.part
  mv $published.part $published
fi
ablation_videos twenty
[ "${DATA:-}" = only ] || "$python" "$here/ablations.py" "${PLAN:-$here/nano-instant.yaml}" \
  --out "runs/instant-$steps" --set "schedule.max_steps=$steps" "$@"
