"""From the rows of a data set to the batches that a GPU takes."""
