"""Links in mails work for everyone who has them, until the file is gone or the link is revoked."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import insert, text
from structlog.testing import capture_logs

from stream_app.chat_addresses import shown_address
from stream_app.jobs.models import ExportFile
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.outbox import insert_deliveries
from tests.integration.api.conftest import Harness, client_of, order


class Post:
    """A finished job with recipients, and the links in their mails."""

    def __init__(self, api: Harness) -> None:
        self.api = api
        self.links = DeliveryLinks(api.settings)
        self.user_id = f"user-{uuid4()}"
        self.job = ""
        self.ids: dict[str, UUID] = {}

    async def send(self, *recipients: str, **values: Any) -> None:
        async with self.api.user(user_id=self.user_id) as client:
            wanted = order(recipients=list(recipients))
            response = await client.post("/exports/jobs", json=wanted)
            assert response.status_code == 202, response.text
            self.job = response.json()["export_job_id"]
        done = {
            "status": "completed",
            "file_path": f"jobs/{self.job}/1/ledger.csv",
            "file_name": "ledger.csv",
            "content_type": "text/csv",
            "expires_at": datetime.now(UTC) + timedelta(days=7),
        }
        await self.api.set(self.job, **done | values)
        async with self.api.engine.begin() as connection:
            await insert_deliveries(connection, [UUID(self.job)])
            rows = await connection.execute(
                text("SELECT * FROM deliveries WHERE job_id = :id"), {"id": self.job}
            )
            self.ids = {row.address: row.id for row in rows.all()}

    def path(self, address: str, purpose: str = "download") -> str:
        url: str = getattr(self.links, purpose)(self.ids[address])
        return url.removeprefix(self.api.settings.public_url)

    def anybody(self) -> httpx2.AsyncClient:
        return client_of(self.api.app, None)


@pytest_asyncio.fixture(loop_scope="module")
async def post(api: Harness) -> Post:
    made = Post(api)
    await made.send("A@example.com", "b@example.com")
    return made


async def test_a_link_leads_to_the_file_and_is_logged(post: Post) -> None:
    async with post.anybody() as client:
        with capture_logs() as logs:
            answer = await client.get(post.path("b@example.com"))
        assert answer.status_code == 307
        assert f"/jobs/{post.job}/1/ledger.csv?" in answer.headers["location"]
        assert answer.headers["cache-control"] == "no-store"
        assert (await client.head(post.path("b@example.com"))).status_code == 307
    (line,) = [line for line in logs if line["event"] == "link.followed"]
    assert (line["job"], line["owner"]) == (post.job, post.user_id)
    assert "b@example.com" not in str(line)
    assert len(line["address_hash"]) == 16


async def test_a_changed_link_is_refused(post: Post) -> None:
    path = post.path("b@example.com")
    token = path.rpartition("/")[2]
    async with post.anybody() as client:
        for changed in (
            path[:-1],
            path.replace(token, ("A" if token[0] != "A" else "B") + token[1:]),
            path.replace("/links/", "/unsubscribe/"),
            DeliveryLinks(post.api.settings).download(uuid4()).removeprefix(post.api.settings.public_url),
        ):
            answer = await client.get(changed)
            assert (answer.status_code, answer.json()["code"]) == (404, "bad_link")


async def test_a_link_ends_with_the_file(post: Post) -> None:
    async with post.anybody() as client:
        await post.api.set(post.job, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        assert (await client.get(post.path("b@example.com"))).json()["code"] == "expired"
        await post.api.set(post.job, expires_at=datetime.now(UTC) + timedelta(days=1), status="expired")
        answer = await client.get(post.path("b@example.com"))
        assert (answer.status_code, answer.json()["code"]) == (410, "expired")


async def test_a_browser_gets_errors_as_a_page(post: Post) -> None:
    await post.api.set(post.job, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    async with post.anybody() as client:
        answer = await client.get(post.path("b@example.com"), headers={"Accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 410
    assert answer.headers["content-type"].startswith("text/html")
    assert "The file has expired and was deleted." in answer.text


async def test_links_can_be_revoked_one_or_all(post: Post) -> None:
    async with post.api.user(user_id=post.user_id) as owner, post.anybody() as client:
        revoke = f"/exports/jobs/{post.job}/links"
        answer = await owner.delete(revoke, params={"address": "a@example.com"})
        assert (answer.status_code, answer.json()) == (200, {"addresses": ["A@example.com"]})
        gone = await client.get(post.path("A@example.com"))
        assert (gone.status_code, gone.json()["code"]) == (410, "link_revoked")
        assert (await client.get(post.path("b@example.com"))).status_code == 307
        assert (await owner.delete(revoke)).json() == {"addresses": ["b@example.com"]}
        assert (await client.get(post.path("b@example.com"))).status_code == 410
        assert (await owner.get(f"/exports/jobs/{post.job}/download")).status_code == 307


async def test_an_address_that_the_job_does_not_have_is_no_success(post: Post) -> None:
    async with post.api.user(user_id=post.user_id) as owner, post.anybody() as client:
        revoke = f"/exports/jobs/{post.job}/links"
        answer = await owner.delete(revoke, params={"address": "c@example.com"})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_recipient")
        assert (await client.get(post.path("b@example.com"))).status_code == 307
        for expected in (["b@example.com"], []):
            answer = await owner.delete(revoke, params={"address": "b@example.com"})
            assert (answer.status_code, answer.json()) == (200, {"addresses": expected})


async def test_recipients_of_a_refused_request_can_be_any_values(post: Post) -> None:
    recipients: list[Any] = [None, 7, {"to": None}, [], "slack:", "d@example.com"]
    await post.api.set(post.job, status="failed", recipients=recipients)
    async with post.api.user(user_id=post.user_id) as owner:
        revoke = f"/exports/jobs/{post.job}/links"
        answer = await owner.delete(revoke, params={"address": "c@example.com"})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_recipient")
        answer = await owner.delete(revoke, params={"address": "d@example.com"})
        assert (answer.status_code, answer.json()) == (200, {"addresses": []})


async def test_the_url_of_a_chat_is_not_shown_and_its_link_can_be_revoked(post: Post) -> None:
    chat, other = (f"slack:https://hooks.slack.com/services/{name}" for name in ("sEcReT", "SeCrEt"))
    await post.send(chat, other, "a@example.com")
    async with post.anybody() as client:
        assert (await client.get(post.path(chat))).status_code == 307
    async with post.api.user(user_id=post.user_id) as owner:
        answer = await owner.get(f"/exports/jobs/{post.job}/deliveries")
        assert {item["channel"] for item in answer.json()["deliveries"]} == {"mail", "slack"}
        assert "secret" not in answer.text.lower()
        assert "secret" not in (await owner.get(f"/exports/jobs/{post.job}")).text.lower()
        shown = shown_address(chat)
        assert shown in [item["address"] for item in answer.json()["deliveries"]]
        revoked = await owner.delete(f"/exports/jobs/{post.job}/links", params={"address": shown})
        assert revoked.json() == {"addresses": [shown]}
    async with post.anybody() as client:
        assert (await client.get(post.path(chat))).status_code == 410
        assert (await client.get(post.path(other))).status_code == 307


async def test_only_the_owner_can_see_and_revoke_deliveries(post: Post) -> None:
    async with post.api.user() as stranger, post.api.user(user_id=post.user_id) as owner:
        assert (await stranger.get(f"/exports/jobs/{post.job}/deliveries")).status_code == 404
        assert (await stranger.delete(f"/exports/jobs/{post.job}/links")).status_code == 404
        shown = (await owner.get(f"/exports/jobs/{post.job}/deliveries")).json()["deliveries"]
    assert [(item["channel"], item["address"], item["status"], item["revoked"]) for item in shown] == [
        ("mail", "A@example.com", "pending", False),
        ("mail", "b@example.com", "pending", False),
    ]


async def test_only_a_post_to_the_unsubscribe_link_unsubscribes(post: Post) -> None:
    path = post.path("A@example.com", "unsubscribe")

    async def unsubscribed() -> list[Any]:
        async with post.api.engine.connect() as connection:
            rows = await connection.execute(text("SELECT address, topic FROM unsubscriptions"))
            return [tuple(row) for row in rows if row.topic == f"user:{post.user_id}"]

    async with post.anybody() as client:
        page = await client.get(path)
        assert page.status_code == 200
        assert '<form method="post">' in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert await unsubscribed() == []
        for _ in range(2):
            done = await client.post(path, data={"List-Unsubscribe": "One-Click"})
            assert done.status_code == 200
        assert await unsubscribed() == [("a@example.com", f"user:{post.user_id}")]
        assert (await client.post(path[:-2])).status_code == 404


HTML = {"Accept": "text/html,*/*;q=0.8"}


async def test_the_page_says_from_what_one_unsubscribes(post: Post) -> None:
    """people 18: for a request its user, for a schedule its name, its dataset and when it runs."""
    schedule = {
        "export_type": "ledger",
        "format": "csv",
        "name": "Ledger of the week",
        "schedule": "weekly",
        "time_of_day": "06:00",
        "timezone": "Europe/Berlin",
        "email_recipients": ["A@example.com", "b@example.com"],
    }
    path = post.path("A@example.com", "unsubscribe")
    async with post.anybody() as client, post.api.user(user_id=post.user_id) as owner:
        page = (await client.get(path, headers=HTML)).text
        assert f"Stop e-mails about exports of {post.user_id}?" in page
        assert "<title>Stop e-mails</title>" in page
        assert "<h1>Stop e-mails</h1>" in page
        assert 'href="../../page/style.css"' in page
        made = (await owner.post("/exports/schedules", json=schedule)).json()
        assert made["unsubscribed"] == []
        await post.api.set(post.job, schedule_id=UUID(made["id"]))
        async with post.api.engine.begin() as connection:
            await connection.execute(
                text("UPDATE deliveries SET topic = :topic WHERE job_id = :job"),
                {"topic": f"schedule:{made['id']}", "job": post.job},
            )
        page = (await client.get(path, headers=HTML | {"Accept-Language": "en"})).text
        assert (
            "from the schedule “Ledger of the week” (ledger, every Monday at 06:00 (Europe/Berlin))?" in page
        )
        german = (await client.get(path, headers=HTML | {"Accept-Language": "de-DE"})).text
        assert '<html lang="de">' in german
        assert "vom Zeitplan „Ledger of the week“ (ledger, jeden Montag um 06:00 (Europe/Berlin))?" in german
        done = await client.post(path, headers=HTML)
        assert "A@example.com will no longer get these e-mails." in done.text
        assert "<title>E-mails stopped</title>" in done.text
        for answer in (
            (await owner.get(f"/exports/schedules/{made['id']}")).json(),
            (await owner.get("/exports/schedules")).json()["schedules"][0],
            (await owner.patch(f"/exports/schedules/{made['id']}", json={"delay": 1})).json(),
        ):
            assert answer["unsubscribed"] == [answer["email_recipients"][0]]
        assert (await owner.delete(f"/exports/schedules/{made['id']}")).status_code == 204
        assert "Stop e-mails from this schedule (ledger)?" in (await client.get(path, headers=HTML)).text


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("kind", ["links", "unsubscribe"])
async def test_a_bad_link_is_a_page_for_people_and_a_problem_for_programs(
    post: Post, kind: str, method: str
) -> None:
    if (kind, method) == ("links", "POST"):
        method = "GET"
    async with post.anybody() as client:
        for token in ("x", "A" * 66):
            page = await client.request(method, f"/exports/{kind}/{token}", headers=HTML)
            assert page.status_code == 404
            assert "<h1>This link does not work</h1>" in page.text
            assert "This link is incomplete or invalid. Open it from the e-mail again." in page.text
            problem = await client.request(method, f"/exports/{kind}/{token}")
            assert (problem.status_code, problem.json()["code"]) == (404, "bad_link")


async def test_a_revoked_link_has_a_page_of_its_own(post: Post) -> None:
    async with post.api.user(user_id=post.user_id) as owner, post.anybody() as client:
        await owner.delete(f"/exports/jobs/{post.job}/links")
        page = await client.get(post.path("b@example.com"), headers=HTML)
    assert page.status_code == 410
    assert "<title>This link does not work</title>" in page.text
    assert "This link has been withdrawn. Ask the person who sent it for a new one." in page.text


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"recipients": ["a@example.com", "nobody"]}, "bad_recipient", "recipients.1"),
        ({"recipients": ["a@b.de\r\nBcc: x@y.de"]}, "bad_recipient", "recipients.0"),
        ({"recipients": ["a@example.com"] * 51}, "invalid_request", "recipients"),
        ({"webhook": "https://hooks.example.com/"}, "webhooks_not_offered", "webhook"),
    ],
)
async def test_recipients_that_are_refused(
    api: Harness, changes: dict[str, Any], code: str, field: str
) -> None:
    async with api.user() as client:
        answer = await client.post("/exports/jobs", json=order(**changes))
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
    assert await api.count() == 0


async def test_recipients_are_part_of_the_request(api: Harness) -> None:
    async with api.user() as client:
        answer = await client.post(
            "/exports/jobs", json=order(recipients=["Ops@Example.com", "ops@example.com", "b@bücher.de"])
        )
    job_id = answer.json()["export_job_id"]
    [event] = await api.published(job_id)
    job = await api.queries.get(UUID(job_id))
    assert job is not None
    assert event.data["recipients"] == job.recipients == ["ops@example.com", "b@xn--bcher-kva.de"]


async def test_a_link_to_several_files_is_a_list_of_them(api: Harness) -> None:
    post = Post(api)
    await post.send("a@example.com")
    folder = f"jobs/{post.job}/1-x"
    await api.set(
        post.job,
        file_path=f"{folder}/manifest.json",
        file_count=2,
        attempt=1,
        content_type="application/json",
    )
    rows = [
        {
            "job_id": UUID(post.job),
            "number": number,
            "key": f"{folder}/ledger-{number}.csv",
            "attempt": 1,
            "result": f"{folder}/manifest.json",
            "bucket": "b",
            "file_name": f"ledger-{number}.csv",
            "content_type": "text/csv",
            "row_count": 7,
            "file_size": 2000,
            "sha256": "x",
        }
        for number in (1, 2)
    ]
    async with api.engine.begin() as connection:
        await connection.execute(insert(ExportFile), rows)
    path = post.path("a@example.com")
    async with post.anybody() as client:
        refused = await client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (409, "several_files")
        assert refused.headers["link"] == f'<{path}/files>; rel="collection"'
        page = await client.get(path, headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert "ledger-2.csv</a> <small>2.0 kB, 7 rows</small>" in page.text
        (_, second) = re.findall(r'<a href="([^"]+)"', page.text)
        link = urljoin(f"http://api{path}", second).removeprefix("http://api")
        assert link == f"{path}/files/2"
        answer, probed = await client.get(link), await client.head(link)
        assert (answer.status_code, probed.status_code) == (307, 307)
        for one in (answer, probed):
            assert "ledger-2.csv" in one.headers["location"]
        assert answer.headers["location"] != probed.headers["location"], "signed for the method"
        for accept, status in (("text/html", 200), ("*/*", 409)):
            probed = await client.head(path, headers={"Accept": accept})
            assert (probed.status_code, probed.content) == (status, b"")
        listed = (await client.get(f"{path}/files")).json()["files"]
        assert [file["download_url"] for file in listed] == [f"{path}/files/1", f"{path}/files/2"]
        assert (await client.get(f"{path}/files/3")).status_code == 404
        async with api.user(user_id=post.user_id) as owner:
            await owner.delete(f"/exports/jobs/{post.job}/links")
        assert (await client.get(f"{path}/files/1")).status_code == 410
