"""Networks that fuse modalities, a file for each family of strategies."""
