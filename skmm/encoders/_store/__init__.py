"""Stores of vectors: keys, files, and the division of work among workers."""
