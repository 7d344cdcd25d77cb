"""The password of zip archives is shown once, to the user of the job alone; keys are checked."""

import asyncio
from uuid import uuid4

import pytest

from stream_app.exports.files.passwords import FilePasswords
from tests.integration.api.conftest import Harness, order
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
