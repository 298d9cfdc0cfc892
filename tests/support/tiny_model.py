"""A language model of 130 kB that says nothing sensible: for tests of servers that want a file.

It is made of numbers drawn from a seed, so it is always the same. Its words are single characters:
it says printable ASCII, and anything else only where a grammar leaves it nothing else; it stops
only then, or where it has to. Written by hand, as GGUF is quickly written, and the package that
writes it needs numpy.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ["CALL", "CONTEXT", "STOP", "THOUGHT", "write_model"]

CALL: Final = "<tool_call>"
"""The word before a tool call: said only by a model that is biased to it."""
THOUGHT: Final = "</think>"
"""The word that ends thoughts; as `CALL`."""
STOP: Final = 2
"""The number of the word that ends an answer; as `CALL`."""
CONTEXT: Final = 32_768
"""So many words it has been trained on, it says."""

_Value: TypeAlias = str | int | float | bool | Sequence[str] | Sequence[int] | Sequence[float]
_Rows: TypeAlias = list[list[float]]

_WIDTH: Final = 32
_ALIGNMENT: Final = 32
_F32: Final = 0
_UNSIGNED, _SIGNED = 4, 5

# Kinds of words, and what is added to how likely each is.
_NORMAL, _UNKNOWN, _CONTROL, _DEFINED, _BYTE = 1, 2, 3, 4, 6
_NEVER: Final = -10.0

_WORDS: Final[Sequence[tuple[str, int]]] = (
    ("<unk>", _UNKNOWN),
    ("<s>", _CONTROL),
    ("</s>", _CONTROL),
    *((f"<0x{byte:02X}>", _BYTE) for byte in range(256)),
    ("\u2581", _NORMAL),  # a space
    *((chr(code), _NORMAL) for code in range(0x21, 0x7F)),
    (CALL, _DEFINED),
    ("</tool_call>", _DEFINED),
    ("<think>", _DEFINED),
    (THOUGHT, _DEFINED),
)
# The first ends a text of JSON's: texts shall be short.
_LIKELY: Final = {'"': 0.7, "\u2581": 0.5}

_TEMPLATE: Final = """\
{% if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}\
{% if message.content %}{{ message.content }}{% endif %}\
{% for call in message.tool_calls or [] %}<tool_call>\
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}\
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking %}<think>{% endif %}{% endif %}"""

_FACTS: Final[dict[str, _Value]] = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.block_count": 1,
    "llama.context_length": CONTEXT,
    "llama.embedding_length": _WIDTH,
    "llama.feed_forward_length": _WIDTH,
    "llama.rope.dimension_count": _WIDTH // 2,
    "llama.vocab_size": len(_WORDS),
    "tokenizer.chat_template": _TEMPLATE,
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": STOP,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.scores": [0.0] * len(_WORDS),
    "tokenizer.ggml.token_type": [kind for _, kind in _WORDS],
    "tokenizer.ggml.tokens": [word for word, _ in _WORDS],
    "tokenizer.ggml.unknown_token_id": 0,
}


def write_model(file: Path, seed: int = 1) -> None:
    """Write it, in version 3 of GGUF."""
    tensors = _tensors(random.Random(seed))  # noqa: S311  # no secret
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(_FACTS)))
    for name, fact in _FACTS.items():
        head += _text(name) + _value(fact)
    data = bytearray()
    for name, rows in tensors.items():
        shape = [len(rows[0]), len(rows)] if len(rows) > 1 else [len(rows[0])]
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", _F32, len(data))
        for row in rows:
            data += struct.pack(f"<{len(row)}f", *row)
        data += bytes(-len(data) % _ALIGNMENT)
    file.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)


def _tensors(chance: random.Random) -> dict[str, _Rows]:
    def drawn(rows: int, spread: float) -> _Rows:
        return [[chance.gauss(0, spread) for _ in range(_WIDTH)] for _ in range(rows)]

    # The first number of a word is always the same, so that what the output has there is added
    # to how likely a word is, whatever was said before.
    words, output = drawn(len(_WORDS), 1.0), drawn(len(_WORDS), 0.15)
    for (word, kind), one, out in zip(_WORDS, words, output, strict=True):
        one[0] = 4.0
        out[0] = _LIKELY.get(word, 0.0) if kind == _NORMAL else _NEVER
    ones = [[1.0] * _WIDTH]
    layer = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    return {
        "token_embd.weight": words,
        "output.weight": output,
        "output_norm.weight": ones,
        "blk.0.attn_norm.weight": ones,
        "blk.0.ffn_norm.weight": ones,
        **{f"blk.0.{name}.weight": drawn(_WIDTH, 0.2) for name in layer},
    }


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: _Value) -> bytes:
    """Return a value with its kind before it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        kind, bodies = _plain(value[0])[0], [_plain(one)[1] for one in value]
        # In a list, numbers are signed, says the reader; alone, they are not.
        kind = _SIGNED if kind == _UNSIGNED else kind
        return struct.pack("<IIQ", 9, kind, len(bodies)) + b"".join(bodies)
    kind, body = _plain(value)
    return struct.pack("<I", kind) + body


def _plain(value: str | float) -> tuple[int, bytes]:
    match value:
        case bool():
            return 7, struct.pack("<?", value)
        case str():
            return 8, _text(value)
        case float():
            return 6, struct.pack("<f", value)
        case int():
            return _UNSIGNED, struct.pack("<I", value)
