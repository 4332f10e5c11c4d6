"""Pretrained checkpoints: their files and digests, loading, and splitting for fine-tuning."""
