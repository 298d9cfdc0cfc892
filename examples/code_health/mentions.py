"""Who mentions which name: what the searches for unused and dead things share.

Both must rather miss something than accuse something in use, so a mention is anything that may
be one: a name, an attribute, a keyword, a word in a string that is no docstring.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

__all__ = ["is_docstring", "strings", "type_comments", "walk_code", "words"]

_WORD: Final = re.compile(r"[^\W\d]\w*")
_TYPE_COMMENT: Final = re.compile(r"#\s*type:\s*(?!ignore\b)(.*)")


def words(text: str) -> list[str]:
    """Return what could be names in a text."""
    return _WORD.findall(text)


def is_docstring(node: ast.AST) -> bool:
    """Whether a statement is nothing but a string."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def walk_code(top: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below ``top``, and itself, but for docstrings. In no particular order."""
    todo = [top]
    while todo:
        node = todo.pop()
        if not is_docstring(node):
            yield node
            todo += ast.iter_child_nodes(node)


def strings(top: ast.AST) -> Iterator[str]:
    """Yield the strings in an expression or statement."""
    for node in walk_code(top):
        match node:
            case ast.Constant(value=str(text)):
                yield text


def type_comments(text: str) -> list[str]:
    """Return the words in the type comments of a file: the annotations of old."""
    if "type:" not in text:
        return []
    return [word for comment in _TYPE_COMMENT.findall(text) for word in words(comment)]
