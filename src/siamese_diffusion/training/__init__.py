"""The training loop and its checkpoints; knows no method."""
