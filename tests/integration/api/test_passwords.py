"""The password of zip archives is shown once, to the user of the job alone; keys are checked."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from stream_app.exports.files.encryption import FINGERPRINT
from stream_app.exports.files.passwords import FilePasswords
from streaming_exporter.errors import InDoubt
from streaming_exporter.file_secret import FileSecret
from tests.integration.api.conftest import Harness, changed, order, running
from tests.integration.api.test_jobs import place

ZIP = {"zip_password": True}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@rust"


async def test_the_password_is_shown_once(api: Harness) -> None:
    async with api.user(user_id="user-7") as client:
        job = await place(client, encrypt=ZIP)
        answers = await asyncio.gather(*(client.post(f"/exports/jobs/{job}:password") for _ in range(5)))
        seen = (await client.get(f"/exports/jobs/{job}")).json()
    assert sorted(answer.status_code for answer in answers) == [200, 410, 410, 410, 410]
    [shown] = [answer for answer in answers if answer.status_code == 200]
    passwords = FilePasswords.of(api.settings)
    assert passwords is not None
    assert shown.json() == {"password": passwords(job)}
    assert shown.headers["cache-control"] == "no-store"
    assert {answer.json()["code"] for answer in answers if answer.status_code == 410} == {"password_shown"}
    assert seen["encrypt"] == ZIP
    assert passwords(job) not in str(seen)


async def test_a_changed_secret_shows_no_wrong_password(api: Harness, tmp_path: Path) -> None:
    """Nothing is recorded, so the password is shown once the old secret is back. The API runs on."""
    file = tmp_path / "secret"
    file.write_text("the old secret " * 4)
    settings = changed(api.settings, link_secret=FileSecret(file))
    made_with = FilePasswords.of(settings)
    assert made_with is not None
    async with running(settings) as app, replace(api, app=app).user(user_id="user-7") as client:
        marked, stored, unmarked = [await place(client, encrypt=ZIP) for _ in range(3)]
        await api.set(marked, status="completed", manifest={"rows": 1, FINGERPRINT: made_with.fingerprint})
        await api.set(stored, outcome={"manifest": {FINGERPRINT: made_with.fingerprint}})
        await api.set(unmarked, status="completed", manifest={"rows": 1})
        file.write_text("a new secret " * 4)
        for job in (marked, stored):
            refused = await client.post(f"/exports/jobs/{job}:password")
            assert (refused.status_code, refused.json()["code"]) == (409, "missing_secret")
        of_before = await client.post(f"/exports/jobs/{unmarked}:password")
        assert of_before.status_code == 200, "jobs of earlier versions do not say which key they have"
        assert of_before.json()["password"] != made_with(unmarked)
        file.write_text("the old secret " * 4)
        shown = await client.post(f"/exports/jobs/{marked}:password")
        assert shown.json() == {"password": made_with(marked)}
        file.write_text("a newer secret " * 4)
        again = await client.post(f"/exports/jobs/{marked}:password")
        assert (again.status_code, again.json()["code"]) == (410, "password_shown")


async def test_a_mark_that_is_not_confirmed_is_not_called_unchanged(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the commit: the next call has 410, so the answer must not promise more."""
    execute = asyncpg.Connection.execute
    losing = False

    async def lose(connection: asyncpg.Connection, query: str, *args: object, **options: Any) -> str:
        nonlocal losing
        done: str = await execute(connection, query, *args, **options)
        if losing and query == "COMMIT":
            losing = False
            raise ConnectionResetError("reset")
        return done

    async with api.user(user_id="user-7") as client:
        job = await place(client, encrypt=ZIP)
        monkeypatch.setattr(asyncpg.Connection, "execute", lose)
        losing = True
        answer = await client.post(f"/exports/jobs/{job}:password")
        assert not losing
        assert (answer.status_code, answer.json()["code"]) == (503, InDoubt.code)
        assert "nothing was changed" not in answer.json()["detail"]
        assert (await client.post(f"/exports/jobs/{job}:password")).status_code == 410


@pytest.mark.parametrize("role", ["exports:admin", "exports:operate"])
async def test_nobody_else_is_shown_the_password(api: Harness, role: str) -> None:
    async with api.user(user_id="user-7") as client:
        job = await place(client, encrypt=ZIP)
        async with api.user(role, user_id="other") as other, api.user(user_id="stranger") as stranger:
            assert (await other.post(f"/exports/jobs/{job}:password")).status_code == 403
            assert (await stranger.post(f"/exports/jobs/{job}:password")).status_code == 404
        assert (await client.post(f"/exports/jobs/{job}:password")).status_code == 200


@pytest.mark.parametrize("encrypt", [None, {"age": [KEY]}])
async def test_other_jobs_have_no_password(api: Harness, encrypt: object) -> None:
    async with api.user(user_id="user-7") as client:
        job = await place(client, **({"encrypt": encrypt} if encrypt else {}))
        answer = await client.post(f"/exports/jobs/{job}:password")
        unknown = await client.post(f"/exports/jobs/{uuid4()}:password")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_password")
    assert unknown.status_code == 404


async def test_a_key_that_is_none_is_refused_at_its_place(api: Harness) -> None:
    async with api.user(user_id="user-7") as client:
        answer = await client.post("/exports/jobs", json=order(encrypt={"age": [KEY, "age1nonsense"]}))
    assert (answer.status_code, answer.json()["field"]) == (422, "encrypt.age.1")
    assert "age1nonsense" not in answer.text


async def test_the_event_and_a_schedule_keep_the_encryption(api: Harness) -> None:
    async with api.user(user_id="user-7") as client:
        job = await place(client, encrypt={"age": [KEY]})
        [event] = await api.published(job)
        made = await client.post(
            "/exports/schedules", json=order(encrypt=ZIP, schedule="daily", time_of_day="06:00")
        )
        kept = (await client.get(f"/exports/schedules/{made.json()['id']}")).json()
    assert event.data["encrypt"] == {"age": [KEY]}
    assert kept["encrypt"] == ZIP
