#!/usr/bin/env bash
# The experiment on recall tokens: makes data in data/ablations, then runs nano-instant.yaml.
#
#     STEPS=300 PROCESSES=16 bash benchmarks/nano-instant.sh --at-once 4 --results found --seconds 500
#
# Resumes if interrupted; with results.json of an earlier run in the folder of --results, also on another machine.
# Arguments are passed to ablations.py. Each number of STEPS has its own folder runs/instant-STEPS. SHARE=100 makes a
# hundredth of the data, for a trial; DATA=only ends when the data is complete; PLAN=FILE runs another plan.
set -euo pipefail
here=$(dirname "$0") world=data/ablations steps=${STEPS:-300} python=${PYTHON:-python3}
if ! command -v hourllava >/dev/null; then # the library is only on PYTHONPATH
  commands=$(mktemp -d)
  trap 'rm -rf "$commands"' EXIT
  printf '#!/bin/sh\nexec %s -m hourllava "$@"\n' "$python" >"$commands/hourllava"
  chmod +x "$commands/hourllava"
  PATH=$commands:$PATH
fi
source "$here/../src/hourllava/recipes/hourllava-nano/data.sh"

# The records of 20 questions of nano-ablations.sh.
making=()
videos cards-20 101 1600 0.02-0.18 1 0 normal 128 & making+=($!)
videos deck-20 106 2000 0.25-4 4 0 normal 64 --needles 12 --tasks "$about_cards" & making+=($!)
videos short-20 102 1600 0.2-0.75 1 1 normal 64 & making+=($!)
videos mid-20 104 1200 0.75-4 1 1 dense 64 & making+=($!)
videos far-20 107 600 4-15 2 0 normal 64 & making+=($!)
all "${making[@]}"
[ "${DATA:-}" = only ] || "$python" "$here/ablations.py" "${PLAN:-$here/nano-instant.yaml}" \
  --out "runs/instant-$steps" --set "schedule.max_steps=$steps" "$@"
