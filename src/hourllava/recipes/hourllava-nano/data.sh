# Functions that make training data of MarathonWorld in the folder $world, with PROCESSES processes. Scripts source this
# file. SHARE=100 makes a hundredth of the data, VIDEO_SHARE=2 half of the videos whatever SHARE is, SEED_SHIFT=400 other
# videos. Existing data is kept.
python=${PYTHON:-python3}
cores=($("$python" -c 'import os; print(*sorted(os.sched_getaffinity(0)))')) # nproc obeys OMP_NUM_THREADS
processes=${PROCESSES:-${#cores[@]}}
share=${SHARE:-1} video_share=${VIDEO_SHARE:-${SHARE:-1}} seed_shift=${SEED_SHIFT:-0}
hourllava=(hourllava)
command -v hourllava >/dev/null || hourllava=("$python" -m hourllava) # the library is only on PYTHONPATH
few=$((processes > 4 ? processes / 4 : 1)) # processes of each command, several of which run at once
pixels=128 # twice nano's input: like real videos, frames are scaled down

shards() { # NAME RECORDS KIND MEDIA
  [ -f "$world/shards/$1/index.json" ] ||
    "${hourllava[@]}" data shard "$2" --kind "$3" --media "$4" --out "$world/shards/$1" --workers "$few"
}

lengths() { # NAME OPTION ...
  [ -f "$world/shards/$1/lengths.json" ] ||
    "${hourllava[@]}" data lengths "$world/shards/$1" --model nano --media "$world/videos" --processes "$few" "${@:2}"
}

apart() { # NAME: lengths for recipes in which each question is a sample, with $history earlier ones (0 if unset)
  lengths "$1" --questions segments --history "${history:-0}"
}

all() { # PROCESS ...: wait for all, fail if one failed
  for process in "$@"; do wait "$process"; done
}

videos() { # NAME SEED VIDEOS MINUTES PER_TASK CAPTIONS DIFFICULTY OPTION ...
  [ -f "$world/shards/$1/lengths.json" ] && return
  nice "${hourllava[@]}" world make --out "$world/$1" --seed $(($2 + seed_shift)) --videos $((($3 + video_share - 1) / video_share)) \
    --minutes "$4" --per-task "$5" --captions "$6" --difficulty "$7" --size-pixels $pixels --questions 20 --no-tables \
    --container reference --processes "$few" "${@:8}"
  mkdir -p "$world/videos/marathonworld" # before copying: two copies at once would both try to make it
  cp -r "$world/$1/videos/." "$world/videos"
  shards "$1" "$world/$1/jsons/videomarathon.json" video "$world/$1/videos"
  apart "$1"
}

about_cards='Object Attribute,Scene Recognition,Key Event Extraction,Object Reasoning,Temporal Reasoning'
about_actions='Action Recognition,Action Localization,Action Sequence,Action Reasoning,Object Interaction'
about_actions+=',Object Recognition,Object Permanence'
