"""Where vectors are kept: keys, files of vectors, and who encodes which cell."""
