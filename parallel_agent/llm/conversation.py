"""One activation's talk with a model: turns of calls, until it answers.

What was said is in the log, and is all that a resumed activation needs to go on: a turn is noted
with a checkpoint when the model has spoken, and when the tools have.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import Any, Final, final

import attrs

from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.llm.asking import Asker
from parallel_agent.llm.calling import Caller, Turn, Wanted
from parallel_agent.llm.contents import MODEL, contents_of
from parallel_agent.llm.model import GenerationConfig, ModelRequest, ModelResponse, ToolSpec
from parallel_agent.llm.output import Output
from parallel_agent.model_errors import CallLimitError, ModelArgumentsError, ModelOutputError
from session.actions import EventActions
from session.content import Content, FunctionCall, Part
from session.event import USER, Event

__all__ = ["Conversation", "is_of"]

_LONGEST: Final = 200
"""How much of what a model has said is shown in errors, in letters."""

_AGAIN: Final = (
    "The arguments of your call of {call} cannot be read: {why}. Call it again, with a JSON object."
)

_REPAIR: Final = (
    "That does not fit what is asked for: {problem}. Answer again, with JSON that fits and nothing "
    "else."
)


@final
@attrs.define(eq=False, kw_only=True)
class Conversation:
    """What an activation asks its model, and how it goes on.

    Attributes:
        ctx: the activation's.
        asker: what asks the model.
        instruction: what it is to be and do.
        before: what was said before.
        seen: the numbers of the events in which it was said.
        caller: what makes the calls it wants.
        config: how it is to answer.
        output: what its answer must be.
        repairs: how often it is told that it is not.
        max_turns: how often it may want tools.
        answers_at_last: when it has, it is asked once more, and offered none.
        reads_messages: it is told what is said to its branch meanwhile.
    """

    ctx: InvocationContext
    asker: Asker
    instruction: str
    before: Sequence[Content]
    seen: AbstractSet[int | None]
    caller: Caller
    config: GenerationConfig
    output: Output | None
    repairs: int
    max_turns: int
    answers_at_last: bool = False
    reads_messages: bool = True
    # What this activation has said, and was told, as recorded; nothing that a tool has emitted.
    _own: list[Event] = attrs.field(factory=list[Event], init=False)
    # What tools have asked for whose turn is not over, because others wait for a person.
    _deferred: Mapping[str, Any] | None = attrs.field(default=None, init=False)

    async def run(self) -> None:
        """Talk until the model answers, or its tools have ended the turn."""
        self._go_on()
        while True:
            waiting = self._unanswered()
            if waiting:
                await self._answer(waiting)
            if self._is_over():
                return
            await self._listen()
            response, output = await self._ask()
            if response.calls:
                await self._note(self._calling(response))
                continue
            if output is None and self.output is not None:
                # Null: an output that is none, and its text, "null", would be taken for one.
                response = attrs.evolve(response, content=Content((), role=MODEL))
            self._own.append(await self.ctx.emit(as_event(response, output)))
            if not await self._listen():
                return

    def _go_on(self) -> None:
        """Take up what was said before the run was resumed."""
        noted = self.ctx.restored
        if noted is not None:
            # In the order it was noted: a message that came during an answer stands behind it.
            known = {event.seq: event for event in self.ctx.history()}
            self._own = [known[seq] for seq in noted["own"] if seq in known]
            self._deferred = noted["deferred"]

    async def _listen(self) -> bool:
        """Take in what was said to the branch meanwhile; return whether something was."""
        inbox = activation_of(self.ctx).lane.inbox if self.reads_messages else None
        heard = False
        while inbox is not None and inbox.has_message():
            message = await self.ctx.receive()
            # What had come before this agent began, it was told with the rest.
            if message.seq not in self.seen:
                self._own.append(message)
                heard = True
        return heard

    # The model.

    async def _ask(self) -> tuple[ModelResponse, Any]:
        """Return a response that wants tools, or is an answer that fits, and its output."""
        asides: list[Content] = []
        while True:
            repairs = len(asides) // 2
            try:
                response = await self.asker.ask(self._request(asides))
            except ModelArgumentsError as exc:
                if repairs == self.repairs:
                    raise
                said = Content(f"{exc.call}({exc.arguments:.{_LONGEST}})", role=MODEL)
                asides += [said, Content(_AGAIN.format(call=exc.call, why=exc.why), role=USER)]
                continue
            if response.calls:
                self._check_turns()
                return response, None
            self._check_answer(response)
            if self.output is None:
                return response, None
            problem, value = self.output.read(response.content.text)
            if problem is None:
                return response, value
            if repairs == self.repairs:
                message = (
                    f"the answer does not fit what agent {self._name!r} asks for: {problem}; it "
                    f"is {response.content.text!r:.{_LONGEST}}"
                )
                raise ModelOutputError(message, model=self.asker.model.name)
            asides += [response.content, Content(_REPAIR.format(problem=problem), role=USER)]

    @property
    def _name(self) -> str:
        return self.ctx.agent.name

    def _check_turns(self) -> None:
        turns = self._turns()
        if turns == self.max_turns:
            message = (
                f"agent {self._name!r} has called the tools that {self.asker.model.name} wants "
                f"{turns} times, and it still wants more; max_turns allows more"
            )
            raise CallLimitError(message)

    def _check_answer(self, response: ModelResponse) -> None:
        """Refuse what is no answer, and what asking again would not make one."""
        why: str | None = None
        if response.finish_reason == "content_filter" and not response.content.text:
            why = f"the server has kept back what it answers agent {self._name!r}: a content filter"
        elif self.output is not None and response.refusal is not None:
            why = f"it refuses to answer agent {self._name!r}: {response.refusal}"
        elif self.output is not None and response.finish_reason == "length":
            why = (
                f"its answer to agent {self._name!r} was cut off: max_tokens, or the context of "
                f"the model, is too small for {response.content.text!r:.{_LONGEST}}"
            )
        if why is not None:
            raise ModelOutputError(why, model=self.asker.model.name)

    def _request(self, asides: Sequence[Content]) -> ModelRequest:
        own = contents_of(self._own, self.ctx.agent.name)
        tools = tuple(self.caller.tools.values())
        if self.answers_at_last and self._turns() == self.max_turns:
            tools = ()
        return ModelRequest(
            contents=(*self.before, *own, *asides),
            instruction=self.instruction,
            tools=tuple(ToolSpec(tool.name, tool.description, tool.parameters) for tool in tools),
            output_schema=None if self.output is None else self.output.json_schema,
            config=self.config,
        )

    # Its calls.

    def _calling(self, response: ModelResponse) -> Event:
        """Return the event of a response that wants tools; each call has an id of its own."""
        turn = 1 + self._turns()
        known = {call.id for event in self._own for call in event.function_calls}
        parts: list[Part] = []
        for part in response.content.parts:
            if isinstance(part, FunctionCall):
                if not part.id or part.id in known:
                    name = _digest(self.ctx.invocation_id, self.ctx.path, turn, len(parts))
                    part = attrs.evolve(part, id=f"call_{name}")  # noqa: PLW2901  # the same, with a name
                known.add(part.id)
            parts.append(part)
        content = attrs.evolve(response.content, parts=tuple(parts))
        tools = self.caller.tools
        later = [
            part.id
            for part in parts
            if isinstance(part, FunctionCall) and part.id and part.name in tools
            if tools[part.name].is_long_running
        ]
        return as_event(attrs.evolve(response, content=content), later=later)

    def _turns(self) -> int:
        """Return how often the model has wanted tools."""
        return sum(bool(event.function_calls) for event in self._own)

    def _unanswered(self) -> list[Wanted]:
        """Return the calls of the last turn that have no answer."""
        answered = {one.id for event in self._own for one in event.function_responses}
        turns = [event.function_calls for event in self._own if event.function_calls]
        if not turns or all(call.id in answered for call in turns[-1]):
            return []
        seen: Counter[str] = Counter()
        wanted: list[Wanted] = []
        for turn, calls in enumerate(turns, 1):
            for position, call in enumerate(calls, 1):
                what = _digest(call.name, call.args)
                seen[what] += 1
                if turn == len(turns) and call.id not in answered:
                    effects = f"{call.name}:{what}:{seen[what]}"
                    wanted.append(Wanted(call, f"{turn}-{position}", effects))
        return wanted

    async def _answer(self, calls: Sequence[Wanted]) -> None:
        """Make the calls; record the answers, and what the tools ask for when all have ended."""
        turn = await self.caller.make(calls)
        actions, output = _merged(turn, self._deferred)
        if turn.waits:
            self._deferred = {**_as_json(actions), "output": output}
            actions, output = EventActions(), None
        else:
            self._deferred = None
        if turn.answers:
            content = Content(turn.answers, role=USER)
            await self._note(Event(content, output=output, actions=actions))
        if turn.waits:
            activation = activation_of(self.ctx)
            await activation.invocation.engine.suspend(activation)

    def _is_over(self) -> bool:
        """Return whether the last turn was the last: a tool has ended it, or goes on by itself."""
        calling = next((event for event in reversed(self._own) if event.function_calls), None)
        if calling is None or self._own[-1].function_calls:
            return False
        answers = self._own[self._own.index(calling) + 1 :]
        for event in answers:
            asked = event.actions
            if asked.escalate or asked.skip_summarization or asked.transfer_to_agent is not None:
                return True
            for one in event.function_responses:
                if one.id in calling.long_running_tool_ids and "error" not in one.response:
                    return True
        return False

    async def _note(self, event: Event) -> None:
        """Record an event of the conversation, and that it stands."""
        self._own.append(await self.ctx.emit(event))
        own = [one.seq for one in self._own]
        await self.ctx.checkpoint({"own": own, "deferred": self._deferred})


_ACTIONS: Final = ("escalate", "skip_summarization", "transfer_to_agent")
"""What tools may ask for, beside writing state."""


def _as_json(actions: EventActions) -> dict[str, Any]:
    return {name: getattr(actions, name) for name in _ACTIONS}


def _merged(turn: Turn, deferred: Mapping[str, Any] | None) -> tuple[EventActions, Any]:
    """Return what the tools of a whole turn ask for, and the output that one of them gives."""
    if deferred is None:
        return turn.actions, turn.output
    asked = {name: deferred[name] or value for name, value in _as_json(turn.actions).items()}
    output = deferred["output"] if deferred["skip_summarization"] else turn.output
    return EventActions(**asked), output


def _digest(*of: Any) -> str:
    """Return a short text that is the same for the same values, in any process."""
    return sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:24]


def is_of(event: Event, ctx: InvocationContext) -> bool:
    """Return whether an event was recorded by the activation of ``ctx``, or by one below it."""
    if event.invocation_id != ctx.invocation_id or event.author == USER:
        return False
    return event.path == ctx.path or event.path.startswith(f"{ctx.path}/")


def as_event(response: ModelResponse, output: Any = None, *, later: Sequence[str] = ()) -> Event:
    """Return the event that records a response, with what it has cost."""
    other: dict[str, Any] = {}
    if response.finish_reason is not None:
        other["finishReason"] = response.finish_reason
    if response.model:
        other["modelVersion"] = response.model
    usage = response.usage
    if usage is not None:
        other["usageMetadata"] = {
            "totalTokenCount": usage.input_tokens + usage.output_tokens,
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": usage.output_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
        }
    return Event(
        response.content,
        output=output,
        other=other,
        long_running_tool_ids=tuple(later),
        actions=EventActions(),
    )
