"""Drawn trees, schedules and readers; what must come of them; and the laws that always hold.

``scripts`` says what a tree is, ``drawing`` draws one, ``running`` runs it for real and reports,
``oracle`` says what must come of it, ``laws`` checks a report against what always holds.
"""
