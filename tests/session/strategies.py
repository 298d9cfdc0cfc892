"""What the tests of ``session`` draw: JSON values, contents, events."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from session import (
    BranchOutcome,
    Content,
    Event,
    EventActions,
    FunctionCall,
    FunctionResponse,
    InlineData,
    Origin,
    OtherPart,
    Text,
)

# Without lone surrogates, which have no UTF-8 form and are refused.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text("abcXYZ019_", min_size=1, max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | numbers | texts

json_values = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=4)

# Values a program may hand in and that have no JSON form, somewhere in them.
unstorable = st.sampled_from(
    [math.nan, math.inf, -math.inf, b"", object(), {1}, 1j, "\ud800", {"\udfff": 1}, {1: 2}]
)


def holding(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``value``, under a few containers."""
    return st.recursive(
        value,
        lambda inner: (
            st.tuples(json_values, inner).map(list)
            | st.builds(lambda key, v: {key: v}, texts, inner)
        ),
        max_leaves=4,
    )


_foreign_parts: list[dict[str, Any]] = [
    {"fileData": {"fileUri": "gs://b/o", "mimeType": "text/plain"}},
    {"executableCode": {"code": "1", "language": "PYTHON"}},
    {"text": "signed", "thoughtSignature": "__8="},
    {"functionCall": {"name": "f", "willContinue": True}},
    {"inlineData": {"data": "eA==", "mimeType": "a/b", "displayName": "x"}},
]

parts = st.one_of(
    st.builds(Text, texts, st.booleans()),
    st.builds(FunctionCall, texts, json_objects, st.none() | texts),
    st.builds(FunctionResponse, texts, json_objects, st.none() | texts),
    st.builds(InlineData, st.binary(max_size=8), texts),
    st.builds(OtherPart, st.sampled_from(_foreign_parts)),
)
contents = st.builds(
    Content, st.lists(parts, max_size=3).map(tuple), st.none() | st.sampled_from(["user", "model"])
)
outcomes = st.builds(
    BranchOutcome,
    names,
    st.sampled_from(["completed", "failed", "cancelled"]),
    st.none() | names,
    st.none() | texts,
    st.integers(0, 9),
    st.floats(0, 1e6),
)
actions = st.builds(
    EventActions,
    state_delta=json_objects,
    artifact_delta=st.dictionaries(texts, st.integers(0, 99), max_size=2),
    escalate=st.booleans(),
    transfer_to_agent=st.none() | names,
    route=st.none() | names | st.integers() | st.booleans() | st.lists(names, max_size=2),
    skip_summarization=st.booleans(),
    end_of_agent=st.booleans(),
    agent_state=st.none() | json_objects,
    outcomes=st.lists(outcomes, max_size=2).map(tuple),
    other=st.sampled_from([{}, {"transferReason": "x"}]),
)
origins = st.builds(
    Origin, author=names, invocation_id=names, branch=st.none() | names, path=st.just("") | names
)


def sealed(event: Event) -> Event:
    """``event``, as it is once it was emitted."""
    event.seal()
    return event


open_events = st.builds(
    Event,
    st.none() | texts | contents,
    actions=st.none() | actions,
    output=json_values,
    partial=st.booleans(),
    error_code=st.none() | names,
    error_message=st.none() | texts,
    # A set in ADK.
    long_running_tool_ids=st.lists(names, max_size=2, unique=True).map(sorted),
    custom_metadata=json_objects,
    attempt=st.integers(1, 5),
    other=st.sampled_from([{}, {"turnComplete": True}, {"nodeInfo": {"outputFor": ["a"]}}]),
    origin=origins,
    id=st.none() | names,
    timestamp=st.floats(0, 4e9),
    seq=st.none() | st.integers(1, 10**9),
)
events = open_events.map(sealed)
