"""What a model is sent beside its prompt: histories, images and documents."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Final

import pytest

from parallel_agent.config import check_graph
from parallel_agent.config import materials as reading
from session.content import Content, InlineData
from tests.config.asking import a_file, asked, request, said
from tests.config.writing import refused, write

PNG: Final = b"\x89PNG\r\n\x1a\n and so on"
PDF: Final = b"%PDF-1.7 and so on"
TALK: Final = "prompt: {template: 0, chat_history: talk}"
BEFORE: Final = (Content("Is there?", role="user"), Content("There is."))


async def test_what_was_said_before_is_sent_first(tmp_path: Path) -> None:
    more = """\
        chat_history:
          talk:
            - {role: user, content: Is there?}
            - {role: assistant, content: There is.}
    """
    requests, _ = await asked(tmp_path, a_file(TALK, more=more))
    assert requests == [request(said("Well?"), *BEFORE)]


async def test_what_was_said_before_may_stand_in_a_file(tmp_path: Path) -> None:
    roles = [("user", "Is there?"), ("assistant", "There is.")]
    talk = json.dumps([{"role": role, "content": content} for role, content in roles])
    (tmp_path / "talk.json").write_text(talk, "utf-8")
    requests, _ = await asked(
        tmp_path, a_file(TALK, more="chat_history: {talk: {path: talk.json}}")
    )
    assert requests == [request(said("Well?"), *BEFORE)]


async def test_a_history_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    text = a_file(TALK, more="chat_history: {talk: {path: talk.json}}")
    requests, _ = await asked(tmp_path, text)
    assert requests == [request(said("Well?"))]
    (note,) = check_graph(write(tmp_path, text))
    assert (note.path, note.message) == (
        "chat_history.talk.path",
        "there is no such file: nothing was said yet",
    )


@pytest.mark.parametrize(
    ("history", "written", "why"),
    [
        (
            "[{role: system, content: x}]",
            "",
            "3:30: chat_history.talk[0].role: a role is user, assistant, model, not 'system'",
        ),
        (
            "{path: talk.json}",
            '[{"role": "nobody", "content": ""}]',
            "3:29: chat_history.talk.path[0].role: a role is user, assistant, model, not 'nobody'",
        ),
        (
            "{path: talk.json}",
            "{}",
            (
                "3:29: chat_history.talk.path: the file holds no list of {role, content} in JSON: "
                "a list is needed, not an object"
            ),
        ),
        (
            "{path: talk.json}",
            "[",
            (
                "3:29: chat_history.talk.path: the file holds no list of {role, content} in JSON: "
                "Expecting value: line 1 column 2 (char 1)"
            ),
        ),
        (
            "{path: talk.json}",
            '[{"role": "user", "content": "\\ud800"}]',
            (
                "3:29: chat_history.talk.path: the file holds no list of {role, content} in JSON: "
                "[0].content: the text holds a lone surrogate"
            ),
        ),
        (
            "{path: ../talk.json}",
            "",
            (
                "3:29: chat_history.talk.path: the file of a history lies in the folder of the "
                "graph file, or below it"
            ),
        ),
    ],
)
def test_a_history_that_cannot_be_sent_is_told(
    tmp_path: Path, history: str, written: str, why: str
) -> None:
    (tmp_path / "talk.json").write_text(written, "utf-8")
    (told,) = refused(tmp_path, a_file(TALK, more=f"chat_history: {{talk: {history}}}"))
    assert told.startswith(why)


def test_a_history_is_not_written_to(tmp_path: Path) -> None:
    text = a_file(more="chat_history: {talk: {path: talk.json, auto: true}}")
    (note,) = check_graph(write(tmp_path, text))
    assert (note.line, note.column, note.path) == (3, 40, "chat_history.talk.auto")


def encoded(data: bytes, before: str = "") -> str:
    return before + b64encode(data).decode()


@pytest.mark.parametrize(
    "image",
    [
        "uri: images/plan.png",
        f"base64: '{encoded(PNG)}'",
        f"base64: 'base64:{encoded(PNG)}'",
        f"uri: '{encoded(PNG, 'base64:')}'",
        f"uri: '{encoded(PNG, 'data:image/png;base64,')}'",
        "{uri: images/plan.png, base64: '!'}",
    ],
)
async def test_an_image_is_sent_behind_the_prompt(tmp_path: Path, image: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "plan.png").write_bytes(PNG)
    more = f"images: [{{base64: unused}}, {{{image.strip('{}')}}}]"
    requests, _ = await asked(tmp_path, a_file("prompt: {template: 0}\nimages: [1]", more=more))
    assert requests == [request(said("Well?"), media=(InlineData(PNG, "image/png"),))]


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
    ],
)
async def test_the_kind_of_an_image_is_told_by_its_beginning(
    tmp_path: Path, data: bytes, mime_type: str
) -> None:
    more = f"images: [{{base64: '{encoded(data)}'}}]"
    requests, _ = await asked(tmp_path, a_file("prompt: {template: 0}\nimages: [0]", more=more))
    assert requests == [request(said("Well?"), media=(InlineData(data, mime_type),))]


async def test_documents_come_after_images(tmp_path: Path) -> None:
    more = f"images: [{{base64: '{encoded(PNG)}'}}]\ndocuments: [{{base64: '{encoded(PDF)}'}}]"
    node = "prompt: {template: 0}\ndocuments: [0]\nimages: [0]"
    requests, _ = await asked(tmp_path, a_file(node, more=more))
    media = (InlineData(PNG, "image/png"), InlineData(PDF, "application/pdf"))
    assert requests == [request(said("Well?"), media=media)]


@pytest.mark.parametrize(
    ("media", "why"),
    [
        ("{}", ": it has a uri, a file in the folder of the graph file, or base64"),
        ("{uri: gone.png}", ".uri: the file cannot be read: No such file or directory"),
        (
            "{uri: ../x.png}",
            ".uri: the file lies in the folder of the graph file, or below it",
        ),
        *(
            (
                f"{{uri: '{place}://far/x.png'}}",
                (
                    ".uri: nothing is fetched: save it in the folder of the graph file, and name "
                    "the file"
                ),
            )
            for place in ("http", "HTTPS", "s3")
        ),
        ("{base64: '!'}", ".base64: it is no base64: "),
        (f"{{base64: '{encoded(PDF)}'}}", ".base64: it is no PNG, JPEG, GIF or WebP"),
        (f"{{base64: '{encoded(PNG + bytes(40))}'}}", ".base64: it has more than 40 bytes"),
    ],
)
def test_an_image_that_cannot_be_sent_is_told(
    tmp_path: Path, media: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_MEDIA", 40)
    text = a_file("prompt: {template: 0}\nimages: [0]", more=f"images: [{media}]")
    (told,) = refused(tmp_path, text)
    assert told.startswith("3:")
    assert told.partition("images[0]")[2].startswith(why)


def test_a_document_is_a_pdf(tmp_path: Path) -> None:
    more = f"documents: [{{base64: '{encoded(PNG)}'}}]"
    (told,) = refused(tmp_path, a_file("prompt: {template: 0}\ndocuments: [0]", more=more))
    assert told.endswith("documents[0].base64: it is no PDF")


def test_what_no_node_names_is_not_read(tmp_path: Path) -> None:
    more = "images: [{uri: gone.png}]\nchat_history: {talk: {path: /etc/none}}"
    assert refused(tmp_path, a_file(more=more), models={}) == []
