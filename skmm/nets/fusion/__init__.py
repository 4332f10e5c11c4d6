"""Networks that fuse modalities, one module per family of strategies."""
