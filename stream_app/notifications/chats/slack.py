"""Messages for the incoming webhooks of Slack, and of chats with the same format. Pure.

Slack shows the blocks (https://docs.slack.dev/reference/block-kit). Its notifications, and chats such as
Mattermost, show ``text``, so both say the same. In the blocks all text of a request is plain text.
"""

import re
from typing import Any

from stream_app.notifications.chats.message import ChatMessage

_ERROR = re.compile(rb"[a-z][a-z_]{1,60}")


def slack_payload(message: ChatMessage) -> dict[str, Any]:
    """Return the body of the call."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(message.title)},
        {"type": "section", "text": _plain(message.lead)},
    ]
    lines = [f"*{_escaped(message.title)}*", _escaped(message.lead)]
    for note in message.notes:
        blocks.append({"type": "section", "text": _plain(note)})
        lines.append(_escaped(note))
    facts = [f"{name}: {value}" for name, value in message.facts]
    if facts:
        blocks.append({"type": "section", "fields": [_plain(fact) for fact in facts]})
        lines += map(_escaped, facts)
    if message.link is not None:
        link = f"<{_escaped(message.link)}|{_escaped(message.link_text)}>"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": f"*{link}*"}})
        lines.append(link)
    blocks.append({"type": "context", "elements": [_plain(message.footer)]})
    lines.append(_escaped(message.footer))
    # Slack must not follow the link for a preview: that would count as a download by a recipient.
    return {"text": "\n".join(lines), "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def slack_error(body: bytes) -> str | None:
    """Return the name of the error in the body of an answer, such as ``no_service``."""
    found = _ERROR.fullmatch(body.strip())
    return found[0].decode() if found else None


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _escaped(text: str) -> str:
    """Return text in which Slack sees no mention and no link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
