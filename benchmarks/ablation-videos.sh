# The videos of nano-ablations.sh and nano-instant.sh, which source this file after data.sh. All but cards are drawn at
# nano's own 64 pixels, as they were for the tables in the docs: several trainings on one GPU would wait for larger ones.

ablation_videos() { # COMMAND: runs COMMAND NAME SEED ... (see `videos`) for each set of videos, all at once
  local making=() pixels=64
  pixels=128 "$1" cards 101 1600 0.02-0.18 1 0 normal & making+=($!)
  "$1" deck 106 2000 0.25-4 4 0 normal --needles 12 --tasks "$about_cards" & making+=($!)
  "$1" short 102 1600 0.2-0.75 1 1 normal & making+=($!)
  "$1" mid 104 1200 0.75-4 1 1 dense & making+=($!)
  "$1" far 107 600 4-15 2 0 normal & making+=($!)
  all "${making[@]}"
}
