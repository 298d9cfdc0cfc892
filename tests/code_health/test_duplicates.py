"""Code in several places: the search for repeats against a naive one, and what counts as code."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from examples.code_health.duplicates import Repeat, duplicates, merged, repeats, rows
from tests.code_health.planting import SHARED, SHARED_AGAIN, source

WINDOW = 3

sequences_of_few_items = st.lists(st.lists(st.integers(0, 3), max_size=14), min_size=1, max_size=3)


def found_in(*files: tuple[str, str]) -> list[str]:
    looked = [one for path, text in files for one in rows(source(text, path))]
    return [f"{one['path']}:{one['line']} {one['message']}" for one in duplicates(looked)]


def content(sequences: Sequence[Sequence[int]], place: tuple[int, int], length: int) -> list[int]:
    number, index = place
    return [*sequences[number][index : index + length]]


def naive_pairs(
    sequences: Sequence[Sequence[int]],
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Every pair of equal windows that do not overlap, by comparing each with each."""
    windows = [
        (number, index)
        for number, sequence in enumerate(sequences)
        for index in range(len(sequence) - WINDOW + 1)
    ]
    return [
        (one, other)
        for one, other in itertools.combinations(windows, 2)
        if content(sequences, one, WINDOW) == content(sequences, other, WINDOW)
        and (one[0] != other[0] or other[1] - one[1] >= WINDOW)
    ]


# --------------------------------------------------------------------------- against a naive search


@given(sequences_of_few_items)
def test_every_repeat_stands_at_all_its_places(sequences: list[list[int]]) -> None:
    for repeat in repeats(sequences, WINDOW):
        assert len(repeat.places) > 1
        assert repeat.length >= WINDOW
        first = content(sequences, repeat.places[0], repeat.length)
        assert len(first) == repeat.length
        assert all(content(sequences, place, repeat.length) == first for place in repeat.places)


@given(sequences_of_few_items)
@example([[0, 1, 1, 0, 1, 1, 0]])  # it could grow to the left, into itself
def test_places_of_a_repeat_are_in_order_and_apart(sequences: list[list[int]]) -> None:
    for repeat in repeats(sequences, WINDOW):
        for one, other in itertools.pairwise(repeat.places):
            assert one < other
            assert one[0] != other[0] or one[1] + repeat.length <= other[1]


@given(sequences_of_few_items)
def test_whatever_a_naive_search_finds_is_in_a_repeat(sequences: list[list[int]]) -> None:
    inside = {
        tuple(content(sequences, (number, index + shift), WINDOW))
        for repeat in repeats(sequences, WINDOW)
        for number, index in repeat.places
        for shift in range(repeat.length - WINDOW + 1)
    }
    for one, _ in naive_pairs(sequences):
        assert tuple(content(sequences, one, WINDOW)) in inside


@given(sequences_of_few_items)
def test_a_repeat_is_as_long_as_its_places_agree(sequences: list[list[int]]) -> None:
    for repeat in repeats(sequences, WINDOW):
        apart = min(
            (b[1] - a[1] for a, b in itertools.pairwise(repeat.places) if a[0] == b[0]),
            default=repeat.length + 1,
        )
        if apart == repeat.length:
            continue  # they touch
        for shift in (-1, repeat.length):
            around = [
                sequences[number][index + shift]
                for number, index in repeat.places
                if 0 <= index + shift < len(sequences[number])
            ]
            assert len(around) < len(repeat.places) or len({*around}) > 1


@given(sequences_of_few_items)
def test_where_nothing_is_found_a_naive_search_finds_nothing(sequences: list[list[int]]) -> None:
    assert bool(repeats(sequences, WINDOW)) == bool(naive_pairs(sequences))


@given(sequences_of_few_items)
def test_what_is_merged_into_others_is_covered_by_them(sequences: list[list[int]]) -> None:
    everything = repeats(sequences, WINDOW)
    kept = merged(everything)

    def items(repeat: Repeat) -> set[tuple[int, int]]:
        return {(n, i + shift) for n, i in repeat.places for shift in range(repeat.length)}

    covered = set[tuple[int, int]]().union(*map(items, kept))
    for repeat in everything:
        assert repeat in kept or 2 * len(items(repeat) & covered) > len(items(repeat))


def test_a_longer_run_at_fewer_places_is_a_repeat_of_its_own() -> None:
    found = repeats([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2, 3, 7]], 3)
    assert {(one.length, len(one.places)) for one in found} == {(3, 3), (4, 2)}


def test_what_others_cover_for_a_small_part_is_kept() -> None:
    one, other = Repeat(10, ((0, 0), (1, 0))), Repeat(6, ((0, 8), (2, 0)))
    assert merged([other, one]) == [one, other]


def test_what_saves_more_comes_first() -> None:
    one, other = Repeat(6, ((0, 0), (1, 0), (2, 0))), Repeat(10, ((0, 0), (1, 0)))
    assert merged([other, one]) == [one]


def test_a_long_copy_takes_no_time() -> None:
    (repeat,) = repeats([[*range(20_000)]] * 2, 6)
    assert repeat.length == 20_000


def test_many_equal_items_take_no_time() -> None:
    (repeat,) = repeats([[1] * 50_000], 6)
    assert repeat.length == 6


def test_a_period_repeated_takes_no_time() -> None:
    assert merged(repeats([[*range(100)] * 300], 6))


def test_many_runs_that_begin_alike_take_little_memory() -> None:
    """Cubic, were all the places of each window kept."""
    sequence = [item for length in range(6, 90) for item in [*range(length), -length]]
    tracemalloc.start()
    try:
        assert repeats([sequence], 6)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4_000_000


# ------------------------------------------------------------------------------ in Python's clothes


def test_a_copy_in_another_layout_is_found() -> None:
    files = (
        ("a.py", f"def f(values):\n{SHARED}"),
        ("b.py", f"if x:\n  def g(values):\n{SHARED_AGAIN}"),
    )
    assert found_in(*files) == ["a.py:2 7 lines (to line 8) are also at `b.py:3-12`"]


def test_another_docstring_makes_no_other_code() -> None:
    middle = SHARED.index("    report")
    first, second = SHARED[:middle], SHARED[middle:]
    one, other = (f'{first}    """{what}."""\n{second}' for what in ("One", "Other"))
    assert (
        len(found_in(("a.py", f"def f(values):\n{one}"), ("b.py", f"def g(values):\n{other}"))) == 1
    )


def test_lines_of_nothing_but_brackets_do_not_count() -> None:
    wrapped = SHARED.replace("{", "{\n        ").replace("}", ",\n    }")
    (said,) = found_in(*((f"{name}.py", f"def {name}(values):\n{wrapped}") for name in "ab"))
    assert said.startswith("a.py:2 8 lines (to line 10) ")


def test_a_copy_in_the_same_file_is_found() -> None:
    text = f"def f(values):\n{SHARED}def g(values):\n{SHARED}"
    assert found_in(("a.py", text)) == ["a.py:2 7 lines (to line 8) are also at `a.py:10-16`"]


def test_three_places_are_one_finding() -> None:
    files = [(f"{name}.py", f"def {name}(values):\n{SHARED}") for name in "abc"]
    assert found_in(*files) == ["a.py:2 7 lines (to line 8) are also at `b.py:2-8`, `c.py:2-8`"]


def test_of_many_places_some_are_named() -> None:
    files = [(f"{name}.py", f"def {name}(values):\n{SHARED}") for name in "abcdefghi"]
    (said,) = found_in(*files)
    assert said.endswith("`f.py:2-8` and 3 more")


@pytest.mark.parametrize(
    "text",
    [
        "".join(SHARED.splitlines(keepends=True)[:5]),
        "    a = 1\n    b = 2\n    c = 3\n    d = 4\n    e = 5\n    f = 6\n",
        "    pass\n" * 60,
        '    """' + "Say what it is, in many words.\n" * 9 + '    """\n',
        "".join(f"    from a{n} import (\n        b{n},\n        c{n},\n    )\n" for n in range(9)),
        "    x = [\n" + "        (1, 2, 3, 4, 5, 6, 7),\n        'a',\n" * 9 + "    ]\n",
        "    x = [\n" + "".join(f"        ({n}, {n}),\n" for n in range(40)) + "    ]\n",
        "    # say\n" * 20,
    ],
    ids=["short", "little", "pass", "docstring", "imports", "monotonous", "table", "comments"],
)
def test_what_is_alike_without_being_a_copy_is_not_found(text: str) -> None:
    files = (("a.py", f"def f(values):\n{text}\n"), ("b.py", f"def g(values):\n{text}\n"))
    looked = [one for path, text in files for one in rows(source(text + "    0\n", path))]
    assert duplicates(looked) == []


def test_a_difference_in_one_name_ends_a_copy() -> None:
    other = SHARED.replace("report =", "result =")
    assert (
        found_in(("a.py", f"def f(values):\n{SHARED}"), ("b.py", f"def g(values):\n{other}")) == []
    )


def test_overloads_are_no_copies() -> None:
    parameters = "".join(f"    argument_{number}: int = ...,\n" for number in range(12))
    text = f"@overload\ndef f(\n{parameters}) -> int: ...\n"
    assert found_in(("a.py", text * 2)) == []


def test_the_order_of_files_makes_no_difference() -> None:
    files = [(f"{name}.py", f"def {name}(values):\n{SHARED}") for name in "abc"]
    assert found_in(*files) == found_in(*reversed(files))
