"""Writes the golden files. Run it with ``google-adk`` and this project installed.

    python tests/session/golden/make_golden.py

``adk_*.json`` is what the real ADK writes of one event, in each of the forms it uses. ``ours.json``
is what our codec writes, and what ADK makes of it when it reads it and writes it again. The files
are committed and made once for each release of ADK: tests read them without having ADK.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from session import (
    BranchOutcome,
    Codec,
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

# By name: whoever checks the types of this file need not have ADK.
adk: Any = importlib.import_module("google.adk.events")
types: Any = importlib.import_module("google.genai.types")
NodeInfo: Any = importlib.import_module("google.adk.events.event").NodeInfo
ToolConfirmation: Any = importlib.import_module(
    "google.adk.tools.tool_confirmation"
).ToolConfirmation

HERE = Path(__file__).parent


def adk_events() -> dict[str, Any]:
    """Events that use every field we model, and a good many that we only keep."""
    place: dict[str, Any] = {"invocation_id": "e-1", "timestamp": 1_700_000_000.25}
    return {
        "user_text": adk.Event(
            id="adk-1",
            author="user",
            content=types.Content(role="user", parts=[types.Part(text="to be\nör not 🙂")]),
            **place,
        ),
        "tool_call": adk.Event(
            id="adk-2",
            author="asker",
            branch="fan.asker",
            node_info=NodeInfo(path="fan@1/asker@1"),
            long_running_tool_ids={"call-2", "call-1"},
            content=types.Content(
                role="model",
                parts=[
                    types.Part(text="hm", thought=True),
                    types.Part(
                        function_call=types.FunctionCall(
                            id="call-1", name="look_up", args={"q": "x", "deep": {"n": None}}
                        )
                    ),
                    types.Part(function_call=types.FunctionCall(name="no_args")),
                    types.Part(
                        function_call=types.FunctionCall(name="signed", args={}),
                        thought_signature=b"\xff\xfe\xfd",
                    ),
                ],
            ),
            **place,
        ),
        "tool_response": adk.Event(
            id="adk-3",
            author="asker",
            content=types.Content(
                role="user",
                parts=[
                    types.Part(
                        function_response=types.FunctionResponse(
                            id="call-1", name="look_up", response={"result": [1, 2.5, None]}
                        )
                    ),
                    types.Part(
                        inline_data=types.Blob(data=bytes(range(256)), mime_type="image/png")
                    ),
                    types.Part(
                        inline_data=types.Blob(
                            data=b"x", mime_type="image/png", display_name="x.png"
                        )
                    ),
                    types.Part(
                        file_data=types.FileData(file_uri="gs://b/o", mime_type="text/plain")
                    ),
                    types.Part(
                        executable_code=types.ExecutableCode(
                            code="1+1", language=types.Language.PYTHON
                        )
                    ),
                    types.Part(
                        code_execution_result=types.CodeExecutionResult(
                            outcome=types.Outcome.OUTCOME_OK, output="2"
                        )
                    ),
                ],
            ),
            actions=adk.EventActions(
                state_delta={"plain": None, "app:a": 1, "user:b": [True, {"c": 0.5}]},
                artifact_delta={"x.png": 0, "notes": 3},
                skip_summarization=True,
                requested_tool_confirmations={"call-1": ToolConfirmation(hint="sure?")},
            ),
            **place,
        ),
        "control": adk.Event(
            id="adk-4",
            author="critic",
            output={"score": 3, "notes": []},
            node_info=NodeInfo(
                path="loop@1/critic@2", output_for=["loop@1"], message_as_output=False
            ),
            actions=adk.EventActions(
                escalate=True,
                transfer_to_agent="writer",
                transfer_reason="stuck",
                end_of_agent=True,
                agent_state={"step": 2},
                route=["fix", 1],
                rewind_before_invocation_id="e-0",
            ),
            **place,
        ),
        "model_response": adk.Event(
            id="adk-5",
            author="writer",
            partial=False,
            turn_complete=True,
            interrupted=False,
            finish_reason=types.FinishReason.STOP,
            error_code="SAFETY",
            error_message="no",
            model_version="gemini",
            avg_logprobs=-0.125,
            isolation_scope="call-9",
            custom_metadata={"label": "x", "none": None},
            usage_metadata=types.GenerateContentResponseUsageMetadata(
                prompt_token_count=3, candidates_token_count=4, total_token_count=7
            ),
            grounding_metadata=types.GroundingMetadata(web_search_queries=["weather"]),
            citation_metadata=types.CitationMetadata(
                citations=[types.Citation(title="t", uri="u")]
            ),
            content=types.Content(role="model", parts=[types.Part(text="done")]),
            **place,
        ),
        "empty": adk.Event(id="adk-6", author="", invocation_id="", timestamp=0.0),
    }


def our_events() -> dict[str, Event]:
    """One event with everything, and one with nothing."""
    full = Event(
        Content(
            (
                Text("hello"),
                Text("why", thought=True),
                FunctionCall("look_up", {"q": [1, None, {"deep": "ö"}]}, "call-1"),
                FunctionResponse("look_up", {"result": 2.5}, "call-1"),
                InlineData(b"\xfb\xff\xfe", "image/png"),
                OtherPart({"fileData": {"fileUri": "gs://b/o", "mimeType": "text/plain"}}),
            ),
            role="user",
        ),
        actions=EventActions(
            state_delta={"plain": None, "app:a": 1, "user:b": [True, {"c": 0.5}]},
            artifact_delta={"x.png": 0},
            escalate=True,
            transfer_to_agent="writer",
            skip_summarization=True,
            end_of_agent=True,
            agent_state={"step": 2},
            outcomes=(
                BranchOutcome("a", "completed", duration=0.5),
                BranchOutcome("b", "failed", "ValueError", "no", attempts=3, duration=2.0),
            ),
            other={"route": "fix", "transferReason": "stuck"},
        ),
        output={"score": 3},
        error_code="E",
        error_message="no",
        long_running_tool_ids=("call-1",),
        custom_metadata={"label": "x"},
        attempt=2,
        other={
            "finishReason": "STOP",
            "turnComplete": True,
            "usageMetadata": {"totalTokenCount": 7},
            "nodeInfo": {"outputFor": ["fan@1"]},
        },
        origin=Origin(
            author="writer", invocation_id="e-1", branch="fan.writer", path="fan@1/writer@1"
        ),
        timestamp=1_700_000_000.25,
        seq=7,
    )
    bare = Event(origin=Origin(author="writer", invocation_id="e-1"), timestamp=1.0, id="ours-1")
    for event in (full, bare):
        event.seal()
    return {"full": full, "bare": bare}


def write(name: str, what: object) -> None:
    """Write one golden file, in a form that a diff can show."""
    text = json.dumps(what, indent=1, ensure_ascii=False)
    (HERE / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def main() -> None:
    """Write all of them."""
    release = f"google-adk {importlib.metadata.version('google-adk')}"
    for name, event in adk_events().items():
        forms = {
            "by_alias_without_none": event.model_dump_json(by_alias=True, exclude_none=True),
            "by_alias": event.model_dump_json(by_alias=True),
            "by_name": json.dumps(event.model_dump(mode="json")),
            "by_name_without_none": json.dumps(event.model_dump(mode="json", exclude_none=True)),
        }
        parsed = {form: json.loads(text) for form, text in forms.items()}
        write(f"adk_{name}", {"written_by": release, "forms": parsed})
    codec = Codec()
    ours = {}
    for name, our_event in our_events().items():
        text = codec.dumps(our_event)
        read = adk.Event.model_validate_json(text)
        again = json.loads(read.model_dump_json(by_alias=True, exclude_none=True))
        ours[name] = {"ours": json.loads(text), "after_adk": again}
    write("ours", {"read_by": release, "events": ours})


if __name__ == "__main__":
    main()
