"""Models: what they are asked and answer, and the agent that asks them.

Import from its modules: what needs an extra is imported by nobody who does not use it.
"""
