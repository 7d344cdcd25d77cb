"""Metrics count each event once, with few label values."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from prometheus_client import Counter, generate_latest

from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.live_datasets import datasets_watcher, open_datasets
from stream_app.jobs.states import EVENT_OF
from stream_app.kafka.brokers import Partition
from stream_app.notifications.models import Channel
from stream_app.observability import metric_labels, metrics
from stream_app.settings import Settings
from stream_app.worker.watchdog import PartitionState, Signals
from streaming_exporter.errors import ExporterError, Outage, Rejected, Retryable


def counted(part: str, kind: str) -> float:
    return metrics.PROCESS.get_sample_value("exporter_errors_total", {"part": part, "kind": kind}) or 0


def test_unknown_names_share_one_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_labels, "_known_labels", {})
    metric_labels.set_known_labels(datasets={"ledger"}, formats={"csv"})
    assert metric_labels.job_labels("ledger", "csv") == {"dataset": "ledger", "format": "csv"}
    assert metric_labels.job_labels("csv", "ledger") == {"dataset": "other", "format": "other"}


def series(metric: Counter) -> set[tuple[str, ...]]:
    """Return the label values of the series that a scrape of a worker shows."""
    names = metric._labelnames
    (family,) = metric.collect()
    return {
        tuple(sample.labels[name] for name in names)
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_jobs_and_deliveries_have_series_before_the_first_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise no increase is seen in the first one, and a restart of each worker loses one."""
    monkeypatch.setattr(metric_labels, "_known_labels", {})
    monkeypatch.setattr(metrics, "_first_series", set())
    metric_labels.set_known_labels(datasets={"first_one"}, formats={"csv"})
    assert not [labels for labels in series(metrics.JOBS) if "first_one" in labels], "APIs have none"
    metrics.start_ended_job_series()
    wanted = {
        (state, name, "csv")
        for state in ("completed", "failed")
        for name in ("first_one", metric_labels.OTHER)
    }
    assert wanted <= series(metrics.JOBS)
    assert set(metrics.FIRST_STATES) <= set(EVENT_OF)
    outcomes = {"sent", "failed", "skipped", "ambiguous", "postponed"}
    assert {(str(channel), outcome) for channel in Channel for outcome in outcomes} <= series(
        metrics.DELIVERIES
    )


def test_very_many_datasets_and_reloads_have_few_series_without_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus drops a scrape with too many samples, and then all alerts about the worker are blind."""
    monkeypatch.setattr(metric_labels, "_known_labels", {})
    monkeypatch.setattr(metrics, "_first_series", set())
    before = series(metrics.JOBS)
    for reload in range(3):
        names = {f"many_{reload}_{number:03}" for number in range(100)}
        metric_labels.set_known_labels(datasets=names, formats=FORMATS)
        metrics.start_ended_job_series()
        begun = series(metrics.JOBS) - before
        assert ("failed", "many_0_000", "csv") in begun
        assert 450 < len(begun) <= 500
    assert not [line for line in scrape_of_a_worker() if "_created" in line]
    assert len([line for line in scrape_of_a_worker() if line.startswith("exporter_jobs_ended")]) <= len(
        series(metrics.JOBS)
    )


async def test_datasets_of_a_reload_have_series_before_their_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_labels, "_known_labels", {})
    monkeypatch.setattr(metrics, "_first_series", set())
    file = tmp_path / "datasets.toml"
    file.write_text('[datasets.before]\ntable = "t"\n')
    settings = Settings(_env_file=None).model_copy(update={"datasets_file": file})
    watcher = datasets_watcher(settings, open_datasets(settings), then=metrics.start_ended_job_series)
    await watcher.look()
    file.write_text('[datasets.reloaded]\ntable = "t"\n')
    for _ in range(2):  # the second time it is not changing any more
        await watcher.look()
    assert ("failed", "reloaded", "csv") in series(metrics.JOBS)


def scrape_of_a_worker() -> list[str]:
    return generate_latest(metrics.registry_for("worker")).decode().splitlines()


def test_an_error_counts_only_in_the_part_that_caused_it() -> None:
    before = counted("inner", "outage"), counted("outer", "outage")

    def away() -> None:
        with metrics.count_errors("outer"), metrics.count_errors("inner"):
            try:
                raise OSError("connection refused")
            except OSError as error:
                raise Outage("away") from error

    with pytest.raises(Outage):
        away()
    assert (counted("inner", "outage"), counted("outer", "outage")) == (before[0] + 1, before[1])


@pytest.mark.parametrize(
    ("error", "kind"), [(Retryable("x"), "temporarily_unavailable"), (Rejected("x"), "refused")]
)
def test_only_errors_of_a_library_count_for_a_part(error: Exception, kind: str) -> None:
    before = counted("part", kind)
    for cause in (None, OSError()):
        error.__cause__ = cause
        with pytest.raises(type(error)), metrics.count_errors("part"):
            raise error
    assert counted("part", kind) == before + 1


def test_all_temporary_faults_are_failures_of_the_service() -> None:
    """A request cannot avoid them, unlike a refusal."""
    import_module("stream_app.composition.worker")  # which has all parts of a worker
    temporary, refused = ({kind.code for kind in family(base)} for base in (Retryable, Rejected))
    assert {"waits_for_operator", "temporary_disk", "snapshot_lost", "no_free_connection"} <= temporary
    assert [
        code for code in (*temporary, "worker_lost") if not metric_labels.is_failure_of_service(code)
    ] == []
    assert [code for code in (*refused, "timeout") if metric_labels.is_failure_of_service(code)] == []


def family(kind: type[ExporterError]) -> Iterator[type[ExporterError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from family(narrower)


def test_lag_counts_unprocessed_messages() -> None:
    def place(partition: int) -> Partition:
        return ("exports.requests", partition)

    partition_states = {
        place(0): PartitionState(position=10, oldest=7, acknowledged=False),
        place(1): PartitionState(position=4, oldest=None, acknowledged=False),
        place(2): PartitionState(position=None, oldest=None, acknowledged=False),
    }
    signals = Signals("w", ends={place(0): 12, place(1): 4, place(2): 100}, partition_states=partition_states)
    assert signals.lag() == {"exports.requests": 5}


@pytest.mark.parametrize("process", metrics.REGISTRIES)
def test_every_metric_has_a_help_text(process: str) -> None:
    names = [family.name for family in metrics.registry_for(process).collect()]
    assert len(names) == len(set(names))
    for family in metrics.registry_for(process).collect():
        assert family.name.startswith(("exporter_", "process_"))
        assert family.documentation
