"""What every estimator over (name, transformer, columns) shares."""
