"""The model, to be read in this order: config, layout, forgetting, memaug, modeling, processor."""
