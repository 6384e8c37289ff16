#!/usr/bin/env bash
# Asks a nano what its card reports (docs/nano.md): sets of MarathonWorld, needles, MarathonWorld 1 and the demo.
#
#     GPUS=2 PROCESSES=32 bash benchmarks/nano-card.sh runs/hourllava-nano-s4/final card
#     PARTS="world needles" FIRST_SEED=71 bash benchmarks/nano-card.sh nano card
#
# PROCESSES jobs at a time, each on one core and, with GPUS, on one of so many GPUs; longest first. Resumes if
# interrupted. A failed job does not stop the others, but the script then ends with 1. FIRST_SEED is that of the videos;
# VIDEOS=1 MINUTES=0.2 makes them few and short, for a trial.
set -euo pipefail
model=$1 out=$2 gpus=${GPUS:-0} parts=${PARTS:-world needles marathonworld-1 demo} first=${FIRST_SEED:-51} world=$2
source "$(dirname "$0")/../src/hourllava/recipes/hourllava-nano/data.sh"
mkdir -p "$out"

asked() { # NAME SEEDS VIDEOS MINUTES OPTION ...: a job for each seed
  for ((seed = first; seed < first + $2; seed++)); do
    echo "eval world --out $out/$1-$seed --model $model --seed $seed --videos ${VIDEOS:-$3} --minutes ${MINUTES:-$4} ${*:5}"
  done
}

jobs() {
  for part in $parts; do
    case $part in
      world)
        asked world 12 4 3-60 --no-baselines
        asked short 1 20 0.2-0.75 --no-baselines
        ;;
      needles)
        asked needles-180 10 2 180 --needles --formats choice --no-baselines
        asked needles-60 5 4 60 --needles --formats choice --no-baselines
        asked needles-20 2 10 20 --needles --formats choice --no-baselines
        asked needles 1 20 1,5 --needles --formats choice --no-baselines
        ;;
      marathonworld-1)
        for ((shard = 64; shard >= 0; shard--)); do
          echo "eval marathonworld-1 $out/marathonworld-1-data --out $out/marathonworld-1 --model $model --shard $shard/65"
        done
        ;;
      demo)
        for seed in {1..10}; do echo "demo --model $model --seed $seed --minutes ${MINUTES:-60} --out $out/demo-$seed"; done
        ;;
    esac
  done
}

run() { # ARGUMENT ...: one job, in the slot that xargs gives it
  local log=$out/log-$SLOT.txt core=${cores[SLOT % ${#cores[@]}]}
  [ "$gpus" = 0 ] || export CUDA_VISIBLE_DEVICES=$((SLOT % gpus))
  [ "$1" != demo ] || log=$out/demo-${5}.txt
  if OMP_NUM_THREADS=1 taskset -c "$core" "${hourllava[@]}" "$@" >"$log" 2>&1; then
    echo "done: $*"
  else
    echo "failed: $* (see $log)"
    return 1
  fi
}
export -f run
export out gpus hourllava_words="${hourllava[*]}" core_words="${cores[*]}" # bash exports no arrays

if [[ $parts == *marathonworld-1* ]]; then "${hourllava[@]}" eval make marathonworld-1 "$out/marathonworld-1-data"; fi
failed=0
jobs | xargs -P "$processes" --process-slot-var=SLOT -I{} \
  bash -c 'hourllava=($hourllava_words) cores=($core_words); run $1' _ {} || failed=1
for name in world short needles-180 needles-60 needles-20 needles; do
  folders=("$out/$name"-[0-9][0-9])
  [ ! -d "${folders[0]}" ] || "${hourllava[@]}" eval score "${folders[@]}" --out "$out/scores-$name"
done
[ ! -d "$out/marathonworld-1" ] || "${hourllava[@]}" eval score "$out/marathonworld-1"
if [[ $parts == *demo* ]]; then grep -h "answers are right" "$out"/demo-*.txt || echo "no demo has ended"; fi
exit "$failed"
