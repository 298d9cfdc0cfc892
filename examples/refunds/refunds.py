"""A refund is paid at a bank, outside: twice if the process dies at the wrong moment, or once.

    twice                   once
    ├── read_order          ├── read_order_too
    ├── refund              ├── refund_once       by ctx.once
    └── confirm             └── confirm_too

The bank is a file in the working folder. Ask for their crash certificates with

    parallel-agent certify examples/refunds/refunds.py:twice --check paid_once "order 7"
    parallel-agent certify examples/refunds/refunds.py:once --check paid_once "order 7"
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

from parallel_agent import InvocationContext, Result, SequentialAgent, agent

BANK = Path("bank.jsonl")
AMOUNT = 120


# The bank.


def pay(order: str) -> str:
    """Pay. As banks do, it pays as often as it is asked to."""
    with BANK.open("a", encoding="utf-8") as book:
        book.write(json.dumps({"order": order, "amount": AMOUNT}) + "\n")
    return f"{AMOUNT} paid back"


def payments() -> list[dict[str, object]]:
    return (
        [json.loads(line) for line in BANK.read_text("utf-8").splitlines()] if BANK.exists() else []
    )


def pay_if_unpaid(order: str) -> str:
    """Look whether it has been paid; pay if not."""
    paid = [one for one in payments() if one["order"] == order]
    return f"{paid[0]['amount']} paid back" if paid else pay(order)


def paid_once(result: Result) -> None:
    """Say what is wrong at the end: the customer is to get the money, and once."""
    book = payments()
    if len(book) != 1:
        raise AssertionError(f"the bank has paid {len(book)} times")


# The agents.


@agent(output_key="order")
async def read_order(ctx: InvocationContext) -> AsyncIterator[str]:
    yield ctx.user_text.removeprefix("order ")


@agent(output_key="receipt")
async def refund(ctx: InvocationContext) -> AsyncIterator[str]:
    yield "asking the bank"
    yield pay(ctx.state["order"])


@agent(output_key="receipt")
async def refund_once(ctx: InvocationContext) -> AsyncIterator[str]:
    order = ctx.state["order"]
    yield "asking the bank"
    # If the process dies while the bank is being asked, nobody knows: the bank does.
    yield await ctx.once("refund", lambda: pay(order), on_unknown=lambda: pay_if_unpaid(order))


@agent
async def confirm(ctx: InvocationContext) -> AsyncIterator[str]:
    yield f"order {ctx.state['order']}: {ctx.state['receipt']}"


twice = SequentialAgent("twice", [read_order, refund, confirm])
once = SequentialAgent(
    "once",
    [
        read_order.with_options(name="read_order_too"),
        refund_once,
        confirm.with_options(name="confirm_too"),
    ],
)
