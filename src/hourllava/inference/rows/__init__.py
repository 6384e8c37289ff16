"""Answer rows: prompts prefilled into buffers, and steps that decode all rows together."""
