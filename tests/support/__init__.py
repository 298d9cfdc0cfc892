"""Drawn trees, schedules and readers; what must come of them; and the laws that always hold.

``scripts`` says what a tree is and makes agents of it, ``timing`` how its leaves keep time,
``drawing`` draws one, ``running`` runs it and reports, with what ``recording`` noted. Two judges:
``oracle`` says what must come of a tree (by a ``simulation``, not by the kernel), ``laws`` what
holds for every report.
"""
