"""Messages to Slack and Teams: they keep the rules of the vendors, and text of a request is only text."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from stream_app.messages.catalogue import LANGUAGES
from stream_app.notifications.chats.message import WORD_JOINER, ChatMessage, chat_message
from stream_app.notifications.chats.slack import slack_error, slack_payload
from stream_app.notifications.chats.teams import MAX_BYTES, teams_error, teams_payload, teams_status
from stream_app.notifications.notification import Notification, ScheduleSummary
from tests.unit.notifications.notifications import failure, notification

LINK = "https://exports.example.com/exports/links/QUJD.abc_-"
HOSTILE = (
    "<!channel> @here <@U1> <https://evil.example|x> [x](y) ![x](y) <at>all</at> &lt; *b* `c` \u202e\r\n> q"
)
NO_LINK = HOSTILE.replace("https://evil.example|x", "")
RHYTHM = ScheduleSummary("Proofs", "weekly", 0, "06:30", "Europe/Berlin")
SEVERAL = {"file_path": "jobs/1/1/manifest.json", "file_count": 3}
LONG = "W" * 5_000
WIDE = "😀" * 5_000

NOTIFICATIONS = {
    "ready": notification(),
    "empty": notification(row_count=0),
    "named": notification(name="Q3 & Q4", filters={"kind": "proof"}, warnings={"guarded_formulas": 3}),
    "several files": notification(**SEVERAL),
    "encrypted": notification(encryption="age"),
    "with a password": notification(encryption="zip_password"),
    "a run": notification(
        schedule_summary=RHYTHM,
        window=("2026-11-17T00:00:00+00:00", "2026-11-24T00:00:00+00:00"),
        window_zone="Europe/Berlin",
        filters={"kind": "proof"},
    ),
    "failed": failure(),
    "failed for a while": failure(error_code="temporarily_unavailable", error_message="the source is away"),
    "failed and paused": failure(schedule_summary=RHYTHM, paused="it has failed 5 times"),
    "hostile": notification(name=HOSTILE, user_id=HOSTILE, filters={HOSTILE: HOSTILE}, label=NO_LINK),
    "hostile and failed": failure(name=HOSTILE, user_id=HOSTILE, export_type=HOSTILE, error_message=HOSTILE),
    "hostile run": failure(schedule_summary=RHYTHM, name=HOSTILE, user_id=HOSTILE, export_type=HOSTILE),
    **{
        f"{kind} texts": notification(
            name=text,
            user_id=text,
            label=text,
            file_name=text,
            schedule_summary=ScheduleSummary(text, "daily", None, "00:00", "UTC"),
            window=(text, text),
            filters={f"{text}{number}": text for number in range(20)},
            warnings={f"{text}{number}": 10**9 for number in range(20)},
        )
        for kind, text in (("long", LONG), ("wide", WIDE), ("active", "<a @b " * 500))
    },
}


@pytest.fixture(params=sorted(LANGUAGES))
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@cache
def card_parts() -> dict[str, Any]:
    """Return Microsoft's models. Their import takes long, and only this module needs them."""
    from microsoft_teams.cards import AdaptiveCard, OpenUrlAction, RichTextBlock, TextRun

    return {
        "AdaptiveCard": AdaptiveCard,
        "RichTextBlock": RichTextBlock,
        "TextRun": TextRun,
        "Action.OpenUrl": OpenUrlAction,
    }


def written(about: Notification, language: str) -> ChatMessage:
    return chat_message(replace(about, options={"language": language}), LINK)


def texts(value: object) -> Iterator[str]:
    """Yield all texts in a JSON value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("kind", NOTIFICATIONS)
def test_messages_to_slack_keep_the_limits_of_block_kit(kind: str, language: str) -> None:
    payload = slack_payload(written(NOTIFICATIONS[kind], language))
    from slack_sdk.models.blocks import Block

    blocks = Block.parse_all(payload["blocks"])
    assert len(blocks) == len(payload["blocks"]) <= 50
    for block in blocks:
        block.validate_json()
    assert len(payload["blocks"][0]["text"]["text"]) <= 150
    for block in payload["blocks"]:
        found = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        assert all(0 < len(item["text"]) <= 2_000 for item in found if item)
        assert len(block.get("fields", [])) <= 10
    assert 0 < len(payload["text"]) <= 4_000, "Mattermost cuts longer texts into several messages"


@pytest.mark.parametrize("kind", NOTIFICATIONS)
def test_messages_to_teams_are_adaptive_cards_of_bounded_size(kind: str, language: str) -> None:
    payload = teams_payload(written(NOTIFICATIONS[kind], language))
    assert len(json.dumps(payload, ensure_ascii=False).encode()) < MAX_BYTES
    assert payload["type"] == "message"
    (attachment,) = payload["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert card["version"] == "1.4"
    parts = [card, *card["body"], *(run for block in card["body"] for run in block["inlines"])]
    for part in [*parts, *card.get("actions", [])]:
        model = card_parts()[part["type"]].model_validate(part)
        assert not set(model.model_extra or {}) - {"$schema"}, f"unknown fields of {part['type']}"


@pytest.mark.parametrize("kind", NOTIFICATIONS)
def test_text_of_a_request_is_neither_a_mention_nor_a_link(kind: str, language: str) -> None:
    message = written(NOTIFICATIONS[kind], language)
    slack, teams = slack_payload(message), teams_payload(message)
    link = f"<{LINK}|{message.link_text}>" if message.link else ""
    plain = slack["text"].replace(link, "")
    assert "<" not in plain
    assert ">" not in plain
    for block in slack["blocks"]:
        for item in (block.get("text"), *block.get("fields", []), *block.get("elements", [])):
            if item and item["type"] == "mrkdwn":
                assert item["text"] == f"*{link}*", "only text of the service is Markdown"
    for text in (plain, *(item for item in texts([slack["blocks"], teams]) if LINK not in item)):
        if not text.startswith("http://adaptivecards.io/"):
            assert not re.search(r"<[!@#a-z/]|\]\(|(?<!\w)@\w|\u202e|evil\.example", text), text


def test_a_message_has_the_facts_of_the_export() -> None:
    message = written(NOTIFICATIONS["a run"], "en")
    assert message.title.startswith("Export of ledger, ")
    assert message.link == LINK
    facts = dict(message.facts)
    assert facts["Rows"] == "3,120"
    assert facts["Requested by"] == "user-17"
    assert facts["Schedule"] == "Proofs, every Monday at 06:30 (Europe/Berlin)"
    assert facts["Filters"] == "kind = proof"
    assert facts["File"] == "ledger-2026-11-24.csv"
    assert {"Period", "Size", "Dataset"} <= set(facts)
    for payload in (slack_payload(message), teams_payload(message)):
        said = "\n".join(texts(payload))
        assert all(word in said for word in (LINK, "3,120", "user-17", "ledger-2026-11-24.csv"))


def test_a_message_names_the_destination_that_has_the_files() -> None:
    facts = dict(written(notification(sent_to="acme"), "en").facts)
    assert facts["Also sent to"] == "acme"


def test_a_message_about_a_failure_has_a_reason_and_no_link() -> None:
    message = written(NOTIFICATIONS["failed for a while"], "en")
    assert message.link is None
    assert message.notes[0] == "The source is away."
    assert dict(message.facts)["Job id"] == str(failure().job_id)
    refused = written(NOTIFICATIONS["failed"], "en")
    assert "colour" not in "\n".join(texts(slack_payload(refused))), "it is text of the request"
    assert not [text for text in texts(teams_payload(refused)) if "exports.example.com" in text]


def test_a_message_has_the_language_of_the_request() -> None:
    message = written(NOTIFICATIONS["ready"], "de")
    assert message.link_text == "Herunterladen"
    assert "Der Link gilt bis" in message.footer


def test_hostile_text_stays_readable() -> None:
    message = written(notification(name="Team @here <b> [x](y)"), "en")
    assert message.title.replace(WORD_JOINER, "").startswith("Team @here <b> [x](y), ")
    assert r"Team @" + WORD_JOINER + "here &lt;" in slack_payload(message)["text"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"no_service", "no_service"),
        (b" invalid_payload\n", "invalid_payload"),
        (b"", None),
        (b"<html>no</html>", None),
        (b"x" * 900, None),
        (b"secret https://hooks.slack.com/services/T/B/x", None),
    ],
)
def test_only_the_name_of_an_error_of_slack_is_kept(body: bytes, error: str | None) -> None:
    assert slack_error(body) == error


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (202, b"", (202, None)),
        (200, b"1", (200, None)),
        (
            200,
            b"Webhook message delivery failed with error: Teams endpoint returned HTTP error 429 with",
            (429, None),
        ),
        (404, b'{"error":{"code":"WorkflowNotFound","message":"The workflow"}}', (404, "WorkflowNotFound")),
        (400, b'{"error":{"code":"a b"}}', (400, None)),
    ],
)
def test_answers_of_teams(status: int, body: bytes, found: tuple[int, str | None]) -> None:
    assert (teams_status(status, body), teams_error(body)) == found
