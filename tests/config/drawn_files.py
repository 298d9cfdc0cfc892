"""Draws graph files: what they hold, as values. All of them make a graph."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["graph_files"]

# What writes YAML here does not read all that it writes: `:0` without quotes, for one.
WORDS = st.text("abcxyzé '\"#\n-", min_size=1, max_size=8)
SECONDS = st.floats(0.5, 100) | st.integers(1, 100)
RETRIES = st.integers(1, 5) | st.fixed_dictionaries(
    {}, optional={"max_attempts": st.integers(1, 5), "initial_delay": SECONDS, "jitter": st.just(0)}
)
POLICIES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["fail_fast", "wait_all", "best_effort", "escalate"]),
    st.fixed_dictionaries({"escalate": WORDS}),
)
COMMON = {
    "description": WORDS | st.none(),
    "output_key": st.sampled_from(["a", "b c", "temp:x"]),
    "retry": RETRIES,
    "timeout": SECONDS,
    "idle_timeout": SECONDS,
    "show": st.booleans(),
    "message_passing": st.fixed_dictionaries(
        {}, optional={"input": st.booleans(), "output": st.booleans()}
    ),
}
FOR_MODELS = {
    "model": st.just(0) | st.just("small"),
    "temperature": st.floats(0, 1),
    "max_tokens": st.integers(1, 100),
    "prompt": st.none() | st.fixed_dictionaries({"template": st.integers(0, 1)}),
    "blackboard": st.fixed_dictionaries(
        {"id": st.sampled_from(["x", "y"])},
        optional={key: st.booleans() for key in ("read", "write", "chain")},
    ),
    "structured_output": st.dictionaries(WORDS, st.integers() | WORDS, max_size=2),
}


@st.composite
def graph_files(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a file: nodes of all kinds, and edges that lead on through the alphabet."""
    nodes = [draw(_leaves(f"n-{letter}")) for letter in "abcdefg"[: draw(st.integers(1, 7))]]
    ids = [node["id"] for node in nodes]
    for kind in draw(st.lists(st.sampled_from(["sequential", "parallel", "loop", "map"]))):
        if len(ids) > 1 and not {"message_passing", "blackboard"} & nodes[len(ids) - 1].keys():
            member = ids.pop()
            node = {"id": f"over_{member}", kind: member if kind == "map" else [member]}
            nodes.append(node | ({"max_iterations": 2} if kind == "loop" else {}))
    file: dict[str, Any] = {
        "models": [{"llm": "ollama", "model": "m", "name": "small"}],
        "prompts": [{"template": {}}, {"template": {"system_template": draw(_TEXTS)}}],
        "blackboard": {"boards": [{"id": "x"}, {"id": "y", "import": ["x"], "cleanup": False}]},
        "nodes": draw(st.permutations(nodes)),
        "edges": draw(_edges(ids)),
    }
    top = {"name": st.just("drawn"), "policy": POLICIES, "max_concurrency": st.integers(1, 3)}
    more = {key: COMMON[key] for key in ("description", "retry", "timeout", "output_key")}
    return file | draw(st.fixed_dictionaries({}, optional=top | more))


_TEXTS = st.none() | st.dictionaries(WORDS, WORDS, max_size=2)


@st.composite
def _leaves(draw: st.DrawFn, name: str) -> dict[str, Any]:
    if draw(st.booleans()):
        required = {"id": st.just(name), "model": FOR_MODELS["model"]}
        optional = {key: value for key, value in FOR_MODELS.items() if key != "model"}
        return draw(st.fixed_dictionaries(required, optional={**COMMON, **optional}))
    required = {"id": st.just(name), "agent": st.just("echo")}
    return draw(st.fixed_dictionaries(required, optional=COMMON))


@st.composite
def _edges(draw: st.DrawFn, ids: list[str]) -> list[Any]:
    edges: list[Any] = []
    for position, name in enumerate(ids):
        before, after = ids[:position], ids[position + 1 :]
        edge: dict[str, Any] = {"node": name}
        for key, others in (("children", after), ("fan_in", before)):
            there: list[str] = []
            if others:
                there = draw(st.lists(st.sampled_from(others), unique=True))
            is_ordered: bool = draw(st.booleans())
            # In the order of the alphabet, so that chains lead on as well.
            listed: list[Any] = sorted(there, key=ids.index)
            if key == "children" and not is_ordered:
                listed = [{"node": one} if draw(st.booleans()) else one for one in listed]
            is_written: bool = draw(st.booleans())
            if listed or is_written:
                edge[f"ordered_{key}" if is_ordered else key] = listed
        edges.append(edge if len(edge) > 1 or draw(st.booleans()) else name)
    ordered: list[Any] = draw(st.permutations(edges))
    return ordered
