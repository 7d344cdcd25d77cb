"""What a chat message says about the end of an export, before it has the format of a chat. Pure."""

import re
from dataclasses import dataclass

from stream_app.notifications.notification import Notification
from stream_app.notifications.notification_words import NotificationWords
from stream_app.notifications.request_words import one_line

MAX_TITLE = 150
MAX_TEXT = 600
MAX_VALUE = 200
MAX_NOTES = 5

FACTS = (
    "schedule",
    "requested_by",
    "dataset",
    "period",
    "filters",
    "rows",
    "file",
    "files",
    "size",
    "sent_to",
    "format",
    "job",
)
"""The facts of a message, of which at most ten have a value at a time."""

WORD_JOINER = "\u2060"
"""An invisible character that does not end a word."""

_ACTIVE = re.compile(r"(?<![\w.+-])@(?=\w)|\](?=\()|<(?=[^\s\d])")
"""What can become a mention or a link where a chat reads a text as its own or as Markdown."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """The parts of a message. Only ``link_text`` leads anywhere, to ``link``; a failed export has no link."""

    title: str
    lead: str
    notes: list[str]
    facts: list[tuple[str, str]]
    footer: str
    link: str | None = None
    link_text: str = ""


def chat_message(notification: Notification, link: str) -> ChatMessage:
    """Write the message about the end of an export. The first use of a locale takes long.

    Args:
        notification: how the job ended.
        link: the link to the file.
    """
    words = NotificationWords(notification)
    topic = "user" if notification.schedule_summary is None else "schedule"
    why = words.say(f"chat.why.{topic}", user=words.user)
    found = words.facts()
    values = dict(found.main) | ({"job": str(notification.job_id)} if notification.failed else {})
    facts = [
        (words.say(f"mail.facts.{name}"), _inert(value, MAX_VALUE))
        for name in FACTS
        if (value := values.get(name))
    ]
    title, lead = _inert(words.subject, MAX_TITLE), _inert(" ".join(words.lead()), MAX_TEXT)
    if notification.failed:
        notes = [words.reason(), " ".join(words.advice(words.say("chat.correct", user=words.user)))]
        return ChatMessage(title, lead, _notes(notes), facts, footer=_inert(why, MAX_TEXT))
    until = words.say("chat.until", time=words.expires)
    return ChatMessage(
        title,
        lead,
        _notes(words.warnings()),
        facts,
        footer=_inert(f"{until} {why}", MAX_TEXT),
        link=link,
        link_text=words.say("mail.ready.download"),
    )


def _notes(notes: list[str]) -> list[str]:
    return [_inert(note, MAX_TEXT) for note in notes[:MAX_NOTES]]


def _inert(text: str, limit: int) -> str:
    """Return one line of text in which no chat finds a mention or a link, of at most ``limit`` characters.

    A chat refuses a whole message with one text that is too long.
    """
    line = one_line(text, limit)
    while len(found := _ACTIVE.sub(lambda found: found[0] + WORD_JOINER, line)) > limit:
        line = one_line(line, len(line) - (len(found) - limit + 1) // 2)
    return found
