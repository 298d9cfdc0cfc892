"""Tools: what models may have called. A typed function with a docstring is one.

Import from its modules: what needs an extra is imported by nobody who does not use it.
"""
