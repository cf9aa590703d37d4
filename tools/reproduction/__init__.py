"""The experiments of tools/reproduce.py, and the tables of their results."""
