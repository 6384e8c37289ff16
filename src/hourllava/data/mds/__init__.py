"""MDS shards: the format of mosaicml-streaming, written, read, merged and cached."""
