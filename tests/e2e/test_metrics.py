"""The metrics of worker and API about real exports. No scrape is needed for exports to work."""

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import asyncpg
import httpx2
from prometheus_client.parser import text_string_to_metric_families

from dev.postgres import SOURCE, STATE
from streaming_exporter.events import Topic
from tests.e2e.conftest import RARELY, System
from tests.e2e.tables import at_the_gate, psql
from tests.e2e.test_requests import dead_letters, publish, request
from tests.gate import Gate
from tests.waiting import patient, until, until_async


def scrape(url: str) -> dict[str, float]:
    """Return the samples by name and labels."""
    answer = httpx2.get(url, timeout=patient(10))
    assert answer.status_code == 200
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def gained(before: dict[str, float], after: dict[str, float], name: str) -> float:
    return after[name] - before.get(name, 0)


def summed(found: dict[str, float], name: str, label: str) -> float:
    return sum(value for sample, value in found.items() if sample.startswith(name) and label in sample)


async def unreadable_requests(system: System) -> int:
    """Return the number of requests on the topic of dead letters."""
    letters = await dead_letters(system)
    return sum(dict(letter.headers)["topic"] == Topic.REQUESTS.encode() for letter in letters)


def is_idle(system: System) -> bool:
    """Return whether no job of another test waits or runs."""
    found = scrape(system.metrics)
    if found["exporter_consumer_lag topic=exports.requests"] or found["exporter_slots_running"]:
        return False
    unfinished = "SELECT id FROM export_jobs WHERE status IN ('pending', 'processing')"
    return "(0 rows)" in psql(system.stack, unfinished, database=STATE)


async def test_exports_and_deliveries_are_counted(system: System) -> None:
    await until_async(lambda: is_idle(system))
    letters, before = await unreadable_requests(system), scrape(system.metrics)
    reader = "secret-reader@example.com"
    good = [
        request(export_type="ledger", scope="all", user_id="secret-user", recipients=recipients)
        for recipients in ([], [], [reader])
    ]
    bad = request(export_type="a-users-own-word")
    wanted = [(event.key, event.encode()) for event in (*good, bad)]
    await publish(system, [*wanted, *wanted, (b"?", b"unreadable")])
    for event in good:
        assert system.ended(event.id)["status"] == "completed"
    assert system.ended(bad.id)["status"] == "failed"
    sent = "exporter_deliveries_total channel=mail outcome=sent"
    unreadable = "exporter_dead_letters_total topic=exports.requests"
    lag = "exporter_consumer_lag topic=exports.requests"

    def look() -> dict[str, float] | None:
        found = scrape(system.metrics)
        told = all(found.get(name, 0) > before.get(name, 0) for name in (sent, unreadable))
        idle = found[lag] == found["exporter_slots_running"] == 0
        return found if told and idle else None

    after = await until_async(look, every=RARELY)
    assert gained(before, after, sent) == 1

    rows = gained(before, after, "exporter_export_rows_sum format=csv")
    assert rows == 3 * system.file(good[0].id).count(b"\n") - 3
    assert {
        name: gained(before, after, name)
        for name in (
            "exporter_jobs_ended_total dataset=ledger format=csv state=completed",
            "exporter_jobs_ended_total dataset=other format=csv state=failed",
            "exporter_job_failures_total cause=request",
            "exporter_job_failures_total cause=service",
            "exporter_claims_total attempt=first",
            "exporter_admission_lag_seconds_count",
            "exporter_export_duration_seconds_count format=csv",
            "exporter_export_bytes_count format=csv",
            "exporter_export_rows_per_second_count format=csv",
        )
    } == {
        "exporter_jobs_ended_total dataset=ledger format=csv state=completed": 3,
        "exporter_jobs_ended_total dataset=other format=csv state=failed": 1,
        "exporter_job_failures_total cause=request": 1,
        "exporter_job_failures_total cause=service": 0,
        "exporter_claims_total attempt=first": 3,
        "exporter_admission_lag_seconds_count": 4,
        "exporter_export_duration_seconds_count format=csv": 3,
        "exporter_export_bytes_count format=csv": 3,
        "exporter_export_rows_per_second_count format=csv": 3,
    }
    # A worker reads it again if the group changes before its offset is committed.
    assert gained(before, after, unreadable) == await unreadable_requests(system) - letters
    assert gained(before, after, "exporter_event_loop_lag_seconds_count") > 0
    assert after["exporter_slots"] == 4
    await until_async(lambda: scrape(system.metrics)["exporter_worker_ready"] == 1, every=RARELY)
    told = " ".join(after)
    for private in ("secret-user", "a-users-own-word", reader, good[0].id):
        assert private not in told


async def test_a_worker_has_series_of_jobs_before_the_first_of_them(system: System) -> None:
    assert "exporter_jobs_ended_total dataset=ledger format=parquet state=failed" in scrape(system.metrics)


async def test_running_jobs_are_in_the_queue(system: System) -> None:
    running = "exporter_jobs_unfinished dataset=gated format=csv state=processing"

    def look() -> dict[str, float] | None:
        found = scrape(f"{system.api.address}/metrics")
        return found if running in found else None

    async with Gate(system.stack.postgres.admin_url(SOURCE)):
        job_id = system.ask(export_type="gated", format="csv", scope="all")
        await system.processing(job_id)
        found = await until_async(look, every=RARELY)
        assert found[running] == 1
        assert found["exporter_queue_read"] == 1
        # The slot of a job that another test has cancelled can be in use for a moment.
        await until_async(lambda: scrape(system.metrics)["exporter_slots_running"] == 1, every=RARELY)
        assert system.client.delete(f"/exports/jobs/{job_id}").status_code == 202
        assert system.ended(job_id)["status"] == "cancelled"


async def test_failures_are_counted(system: System) -> None:
    before = scrape(system.metrics)
    async with Gate(system.stack.postgres.admin_url(SOURCE)):
        robbed, cut_off = [system.ask(export_type="gated", format="csv", scope="all") for _ in range(2)]
        await rob_and_cut_off(system, before, robbed, cut_off)
        for job_id in (robbed, cut_off):
            system.client.delete(f"/exports/jobs/{job_id}")
            assert system.ended(job_id)["status"] == "cancelled"


async def rob_and_cut_off(system: System, before: dict[str, float], robbed: str, cut_off: str) -> None:
    """Take one job from the worker and end the session of the other; both are counted."""
    for job_id in (robbed, cut_off):
        await system.processing(job_id)
    state = await asyncpg.connect(system.stack.settings()["EXPORTER_DATABASE_URL"])
    await state.execute(
        "UPDATE export_jobs SET worker = 'another', lease_until = now() + interval '2 seconds' WHERE id = $1",
        robbed,
    )
    await state.close()
    theirs = at_the_gate(cut_off)
    await until_async(lambda: "1 row" in psql(system.stack, f"SELECT pg_terminate_backend(pid) {theirs}"))
    wanted = {
        "leases": ("exporter_leases_lost_total", ""),
        "claims": ("exporter_claims_total", "attempt=later"),
        # The lost connection or the server's error, whichever comes first.
        "retries": ("exporter_retries_total", "reason="),
        "errors": ("exporter_errors_total", "part=source_database"),
    }

    def look() -> dict[str, float] | None:
        after = scrape(system.metrics)
        found = {name: summed(after, *which) - summed(before, *which) for name, which in wanted.items()}
        return found if all(found.values()) else None

    found = await until_async(look, every=RARELY)
    assert found["claims"] >= 1
    assert (found["leases"], found["retries"], found["errors"]) == (1, 1, 1)


async def test_scrapes_that_hang_or_end_early_affect_no_export(system: System) -> None:
    place = urlsplit(system.metrics)
    with ExitStack() as silent:
        for _ in range(20):
            silent.enter_context(socket.create_connection((place.hostname, place.port)))
        with socket.create_connection((place.hostname, place.port)) as broken:
            broken.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        event = request()
        await publish(system, [(event.key, event.encode())])
        assert system.ended(event.id)["status"] == "completed"
        # A busy machine can delay the worker's heartbeat for a moment.
        assert await until_async(lambda: scrape(system.metrics)["exporter_worker_ready"] == 1, every=RARELY)


def test_a_worker_works_although_its_metrics_port_is_taken(system: System) -> None:
    port = str(urlsplit(system.metrics).port)
    second = system.stack.start_worker(settings=system.extra | {"EXPORTER_METRICS_PORT": port})
    assert "metrics.listen_failed" in second.log.read_text()
    until(second.is_ready)  # a busy machine can delay its heartbeat for a moment
    second.stop()
