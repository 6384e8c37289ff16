"""Training: recipe, batch plan, trainer, checkpoints. See docs/training.md."""
