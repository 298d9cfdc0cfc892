"""To watch runs from outside: as a log, as a live tree on a terminal, as an outline.

Import from its modules: what needs an extra is imported by nobody who does not use it.
"""
