"""From downloaded files to the shards of a training stage."""
