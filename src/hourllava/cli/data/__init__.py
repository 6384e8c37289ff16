"""`hourllava data`: look at data sets, mend them, make features of their videos, write them as shards."""
