"""A kit for testing agents that run side by side."""
