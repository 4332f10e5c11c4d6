"""What stands behind an encoder: a frozen checkpoint, one that is fine-tuned, a trained network."""
