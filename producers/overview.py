"""Prints the state of the service for operators: `exporter overview`."""

from datetime import datetime
from typing import Any

import typer

from producers.tables import duration, plain, print_table, utc_time

Found = dict[str, Any]


def print_overview(found: Found) -> None:
    """Print the answer of ``GET /exports/operations``."""
    parts = [f"{name} {state}" for name, state in found["parts"].items()]
    parts += [f"source {name} {state}" for name, state in found["sources"].items()]
    _say("Parts", ", ".join(parts))
    _workers(found)
    _queue(found)
    _restart(found)
    _say("Pauses", ", ".join(item["scope"] for item in found["pauses"]) or "none")
    _schedules(found)
    _deliveries(found)


def _say(title: str, text: str) -> None:
    typer.echo(plain(f"{title}: {text}"))


def _workers(found: Found) -> None:
    present = [worker for worker in found["workers"] if not worker["is_silent"]]
    _say("Workers", f"{len(present)}, {found['slots_running']} of {found['slots']} slots in use")
    for worker in found["workers"]:
        state = f"{worker['running']} of {worker['slots']} slots in use"
        if worker["is_silent"]:
            state = f"silent since {utc_time(worker['seen_at'])}: other workers take over its jobs"
        typer.echo(plain(f"  {worker['name']}  {state}  version {worker['version']}"))


def _queue(found: Found) -> None:
    waits = f"{found['pending']} jobs wait"
    if found["oldest_job_id"] is not None:
        waits += f", the oldest for {duration(found['oldest_seconds'])}: {found['oldest_job_id']}"
    _say("Queue", waits)
    _say("Running", f"{found['processing']} jobs")
    rows = [("  job", "worker", "for", "rows", "user", "dataset")]
    rows += [
        (
            f"  {job['export_job_id']}",
            job["worker"] or "-",
            _for(job["started_at"], found["now"]),
            f"{job['rows'] or 0:,}",
            job["user_id"],
            f"{job['export_type']} {job['format']}",
        )
        for job in found["running"]
    ]
    if len(rows) > 1:
        print_table(rows)


def _restart(found: Found) -> None:
    """Say what a restart costs: exports that do not end in time begin anew."""
    drain = found["drain_seconds"]
    long = sum(_age(job["started_at"], found["now"]) > drain for job in found["running"])
    cost = "no export runs, so it costs nothing"
    if found["running"]:
        cost = (
            f"with SIGTERM a worker gives its exports {drain:.0f} s; those that do not end in time begin "
            f"anew on another worker, and no failure is counted. {long} of {len(found['running'])} have run "
            "for longer than that already"
        )
    _say("Restart of a worker", f"safe; {cost}")


def _schedules(found: Found) -> None:
    numbers = found["schedules"]
    texts = [f"{numbers['active']} active"]
    texts += [
        f"{numbers[name]} {words}"
        for name, words in (
            ("late", "late: check ticker and workers"),
            ("failing", "whose last run failed"),
            ("paused_by_service", "paused after failures"),
        )
        if numbers[name]
    ]
    _say("Schedules", ", ".join(texts))
    for item in found["failing_schedules"]:
        state = (
            f"{item['failures']} failures" if item["active"] else f"paused after {item['failures']} failures"
        )
        typer.echo(
            plain(f"  {item['id']}  {item['export_type']} {item['format']} of {item['user_id']}  {state}")
        )
        if item["last_job_id"] is not None:
            typer.echo(plain(f"    last job: {item['last_job_id']}  {utc_time(item['last_run'])}"))
        if item["error_code"] is not None:
            typer.echo(plain(f"    {item['error_code']}: {item['error']}"))


def _deliveries(found: Found) -> None:
    numbers = found["deliveries"]
    waits = f"{numbers['waiting']} wait"
    if numbers["waiting"]:
        waits += f", the oldest for {duration(numbers['oldest_seconds'])}"
    lost = f"{numbers['failed']} failed in the last 7 days, {numbers['ambiguous']} were possibly not sent"
    _say("Deliveries", f"{waits}; {lost}")
    rows = [("  job", "state", "by", "attempts", "ended", "user")]
    rows += [
        (
            f"  {item['export_job_id']}",
            item["status"],
            item["channel"],
            str(item["attempts"]),
            utc_time(item["finished_at"]),
            item["user_id"],
        )
        for item in found["lost_deliveries"]
    ]
    if len(rows) > 1:
        print_table(rows)
        typer.echo("  `exporter resend JOB` sends them again; delivery.failed in the workers' logs says why")


def _age(begin: str | None, now: str) -> float:
    if begin is None:
        return 0.0
    return (datetime.fromisoformat(now) - datetime.fromisoformat(begin)).total_seconds()


def _for(begin: str | None, now: str) -> str:
    return "-" if begin is None else duration(_age(begin, now))
