"""Engines of encoders: frozen checkpoints, fine-tuned checkpoints and trained networks."""
