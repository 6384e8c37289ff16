"""`hourllava data`: check data sets and write them as shards for training."""
