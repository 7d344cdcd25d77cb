"""From a request with a recipient to the file behind the link in the mail."""

import asyncio
import hashlib
import re
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx2

from dev.postgres import STATE
from producers.tokens import sign_token
from stream_app.db.engine import create_engine
from stream_app.notifications.outbox import Outbox
from stream_app.settings import Settings
from tests.e2e.conftest import System
from tests.e2e.tables import psql
from tests.waiting import WITHIN, patient, until


def mails_to(system: System, address: str, count: int = 1) -> list[EmailMessage]:
    """Wait until the address has ``count`` mails; return all of them."""

    def look() -> list[EmailMessage] | None:
        found = [mail for mail in system.stack.smtp.mails() if mail["X-Envelope-To"] == address]
        return found if len(found) >= count else None

    found = until(look, otherwise=f"no mail to {address}")
    assert len(found) == count
    return found


def body(mail: EmailMessage) -> str:
    plain = mail.get_body(("plain",))
    assert plain is not None
    text: str = plain.get_content()
    return text


def test_the_link_in_a_mail_leads_to_the_file_without_a_token(system: System) -> None:
    job = system.ask(export_type="ledger", format="csv", scope="all", recipients=["reader@example.com"])
    done = system.ended(job)
    (mail,) = mails_to(system, "reader@example.com")
    assert re.fullmatch(rf"Export of ledger, \d+ \w+ \d{{4}}: {done['row_count']:,} rows", mail["Subject"])
    (link,) = re.findall(r"\S+/exports/links/\S+", body(mail))
    with httpx2.Client(base_url=system.api.address, timeout=patient(30)) as anybody:
        answer = anybody.get(urlsplit(link).path)
        assert answer.status_code == 307, answer.text
        content = httpx2.get(answer.headers["location"], timeout=patient(WITHIN)).content
        assert hashlib.sha256(content).hexdigest() == done["sha256"]
        unsubscribe = urlsplit(mail["List-Unsubscribe"].strip("<>")).path
        assert anybody.post(unsubscribe).status_code == 200

    again = system.ask(export_type="ledger", format="csv", scope="all", recipients=["reader@example.com"])
    system.ended(again)

    def settled() -> list[dict[str, Any]] | None:
        shown = system.client.get(f"/exports/jobs/{again}/deliveries").json()["deliveries"]
        return shown if shown and shown[0]["status"] not in ("pending", "sending") else None

    shown = until(settled)
    assert [(item["status"], item["reason"]) for item in shown] == [
        ("skipped", "the recipient has unsubscribed")
    ]


def test_an_operator_can_send_ambiguous_mails_again(system: System, settings: Settings) -> None:
    job = system.ask(export_type="ledger", format="csv", scope="all", recipients=["lost@example.com"])
    system.ended(job)
    (first,) = mails_to(system, "lost@example.com")
    asyncio.run(_resends_nothing(settings, job))
    asyncio.run(_forget(system, job))
    nothing = "Nothing about that job is failed, skipped or ambiguous."
    assert system.stack.run("resend", job, "--to", "other@example.com") == nothing
    assert system.stack.run("resend", job) == "lost@example.com"
    mails = mails_to(system, "lost@example.com", 2)
    assert [mail["Message-ID"] for mail in mails] == [first["Message-ID"]] * 2


async def _resends_nothing(settings: Settings, job: str) -> None:
    """Assert that no mail of the job can be sent again."""
    engine = create_engine(settings, application="test")
    assert await Outbox(engine).resend(UUID(job), None) == []
    await engine.dispose()


async def _forget(system: System, job: str) -> None:
    """Set the delivery to ambiguous in the outbox."""
    connection = await asyncpg.connect(system.stack.settings()["EXPORTER_DATABASE_URL"])
    await connection.execute("UPDATE deliveries SET status = 'ambiguous' WHERE job_id = $1", UUID(job))
    await connection.close()


def test_a_user_who_is_forgotten_has_no_jobs_and_no_files(system: System, settings: Settings) -> None:
    """S15: one command does it, and cancels a running export first."""
    user = {"Authorization": f"Bearer {sign_token(settings, 'forget-me', ['exports:all'])}"}
    with httpx2.Client(base_url=system.api.address, headers=user, timeout=patient(30)) as client:
        asked = {"export_type": "ledger", "format": "csv", "scope": "all", "recipients": ["f@example.com"]}
        job = client.post("/exports/jobs", json=asked).json()["export_job_id"]
        system.ended(job)
        link = client.get(f"/exports/jobs/{job}/download").headers["location"]
        assert httpx2.get(link, timeout=patient(WITHIN)).status_code == 200
        assert "Erased 1 jobs, removed 1 files" in system.stack.run(
            "forget", "--user-id", "forget-me", "--yes"
        )
        assert client.get("/exports/jobs").json()["jobs"] == []
        assert client.get(f"/exports/jobs/{job}").status_code == 404
        assert httpx2.get(link, timeout=patient(WITHIN)).status_code == 404
    left = "SELECT count(*) FROM deliveries WHERE address = 'f@example.com'"
    assert psql(system.stack, f"COPY ({left}) TO STDOUT", database=STATE).strip() == "0"
