"""A frame's columns: their cells, which of them are missing, and which modality they hold."""
