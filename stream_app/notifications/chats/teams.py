"""Messages for workflows and incoming webhooks of Microsoft Teams: one Adaptive Card each. Pure.

Text of a request is in text runs, which have no Markdown (https://adaptivecards.io/explorer/TextRun.html).
"""

import re
from typing import Any

from stream_app.notifications.chats.message import ChatMessage

MAX_BYTES = 28_000
"""The largest message that Teams accepts. The texts of a message are cut long before that."""

CARD = "application/vnd.microsoft.card.adaptive"
_CODE = re.compile(rb'"code"\s*:\s*"(\w{1,60})"')
_HIDDEN_STATUS = re.compile(rb"failed with error:.*?HTTP error (\d{3})", re.DOTALL)


def teams_payload(message: ChatMessage) -> dict[str, Any]:
    """Return the body of the call."""
    body = [
        _text(_run(message.title, size="Large", weight="Bolder")),
        _text(_run(message.lead)),
        *(_text(_run(note, color="Attention")) for note in message.notes),
        *(_text(_run(f"{name}: ", weight="Bolder"), _run(value)) for name, value in message.facts),
        _text(_run(message.footer, size="Small", isSubtle=True)),
    ]
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    if message.link is not None:
        card["actions"] = [{"type": "Action.OpenUrl", "title": message.link_text, "url": message.link}]
    return {"type": "message", "attachments": [{"contentType": CARD, "contentUrl": None, "content": card}]}


def teams_error(body: bytes) -> str | None:
    """Return the code of the error in the body of an answer, such as ``WorkflowNotFound``."""
    found = _CODE.search(body)
    return found[1].decode() if found else None


def teams_status(status: int, body: bytes) -> int:
    """Return the status of an answer.

    Incoming webhooks answer 200 even to a failure, whose status is in the body.
    """
    found = _HIDDEN_STATUS.search(body) if status == 200 else None
    return int(found[1]) if found else status


def _run(text: str, **style: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": text, **style}


def _text(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(runs)}
