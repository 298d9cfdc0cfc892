"""A code-health review of a folder of Python files; `tree.py` is where to start reading."""
