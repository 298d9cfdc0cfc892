"""``parallel-agent certify``, called as a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from click.testing import CliRunner, Result

import parallel_agent.cli.certify as command
from parallel_agent.certify import Certificate, CertifyError
from parallel_agent.cli.certify import certify, find_target
from tests.support import certified

REFUNDS: Final = str(Path(__file__).parents[2] / "examples" / "refunds" / "refunds.py")
MINE: Final = "tests.support.certified"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(certify, arguments, prog_name="parallel-agent certify")


@pytest.fixture
def asked(twice: Certificate, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks of `certify`, which has the certificate at hand."""
    asked: dict[str, Any] = {}

    async def answer(target: str, **options: Any) -> Certificate:
        await trio.lowlevel.checkpoint()
        asked.update(options, target=target)
        return twice

    monkeypatch.setattr(command, "make_certificate", answer)
    return asked


@pytest.mark.usefixtures("asked")
def test_a_tree_that_does_not_survive_ends_it_with_one(twice: Certificate) -> None:
    called = call("x.py", "hi")
    assert (called.exit_code, called.stdout) == (1, twice.text() + "\n")


@pytest.mark.usefixtures("asked")
def test_as_json_it_prints_nothing_else(twice: Certificate) -> None:
    assert call("x.py", "hi", "--json").stdout == twice.to_json() + "\n"


@pytest.mark.usefixtures("asked")
def test_it_says_where_it_has_kept_what_was_found(twice: Certificate) -> None:
    called = call("x.py", "hi", "--keep", "there")
    assert twice.trials[0].folder in called.stderr


def test_options_are_passed_on(asked: dict[str, Any]) -> None:
    call("x.py", "hi", "--at", "14,3", "--state", "n=1", "--respond", "q=yes", "--harmless", "a")
    assert asked["target"] == "x.py"
    assert asked["message"] == "hi"
    assert asked["at"] == [14, 3]
    assert asked["state"] == {"n": 1}
    assert asked["responses"] == {"q": "yes"}
    assert asked["harmless"] == ("a",)


@pytest.mark.deep
def test_it_prints_the_certificate_and_says_with_its_status_that_something_was_found() -> None:
    """Without a check nobody sees that the bank has paid twice; but who may have done it."""
    called = call(f"{REFUNDS}:twice", "order 7", "--at", "14", "--workers", "1", "--json")
    assert called.exit_code == 1
    read = json.loads(called.stdout)
    assert (read["verdict"], read["unguarded"]) == ("may repeat effects", ["refund"])


@pytest.mark.deep
def test_it_ends_with_zero_if_the_tree_survives() -> None:
    called = call(f"{REFUNDS}:once", "order 7", "--check", "paid_once", "--max-boundaries", "3")
    assert called.exit_code == 0
    assert "verdict: survives" in called.stdout


@pytest.mark.deep
def test_a_tree_that_cannot_be_found_is_a_mistake_in_the_command() -> None:
    called = call(REFUNDS)
    assert called.exit_code == 2
    assert "has several trees" in called.stderr


@pytest.mark.parametrize("at", ["0", "x", "1,,2", ""])
def test_boundaries_are_numbers_from_one_on(at: str) -> None:
    called = call("x.py", "hi", "--at", at)
    assert called.exit_code == 2
    assert "--at takes numbers of boundaries" in called.stderr


def test_a_target_may_be_a_tree_or_what_makes_a_runner() -> None:
    assert find_target(f"{MINE}:small") is certified.small
    assert find_target(f"{MINE}:make_hurried") is certified.make_hurried


def test_a_target_that_is_neither_is_refused_as_by_the_other_commands() -> None:
    with pytest.raises(CertifyError, match="CODEC"):
        find_target(f"{MINE}:CODEC")
    with pytest.raises(CertifyError, match="has no 'nope'"):
        find_target(f"{MINE}:nope")
