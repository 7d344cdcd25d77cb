"""Names of exports (12): which texts are names, and that every event of a job has its name."""

import sys
import unicodedata
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from stream_app.jobs.claim import Claim
from stream_app.jobs.download_names import MAX_BYTES, download_name
from stream_app.jobs.new_job import new_job, request_event_of
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.states import Status
from stream_app.jobs.submission import accepted_data_of_event
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Event, EventType, ExportRequest
from tests.datasets import datasets_of
from tests.rows import each_row

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
VALIDATOR = RequestValidator({"csv"}, datasets_of("ledger"))
REQUEST = {"user_id": "u", "export_type": "ledger", "format": "csv"}


def request(**data: Any) -> Event:
    return Event(id=str(uuid4()), source="/t", type=EventType.REQUESTED, data=REQUEST | data)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Ledger October", "Ledger October"),
        ("  Ledger October ", "Ledger October"),
        ("Übersicht – 10 % für שלום 📈", "Übersicht – 10 % für שלום 📈"),
        ("x" * 200, "x" * 200),
        ("", None),
        (" \t\n", None),
        (None, None),
    ],
)
def test_a_name_is_one_line_of_text(given: str | None, name: str | None) -> None:
    assert ExportRequest.parse(REQUEST | {"name": given}).name == name


def test_no_name_has_a_control_character() -> None:
    controls = [
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(char) in {"Cc", "Zl", "Zp"}
    ]
    assert len(controls) == 67
    for char in controls:
        with pytest.raises(Rejected, match=rf"^name: .*U\+{ord(char):04X}"):
            ExportRequest.parse(REQUEST | {"name": f"a{char}b"})


@pytest.mark.parametrize("name", ["x" * 201, 7, ["a"], {"a": 1}, True, "a\nb"])
def test_a_job_with_another_name_fails_and_keeps_none(name: object) -> None:
    event = request(name=name)
    job = VALIDATOR.job(event, now=NOW)
    assert job.outcome is not None
    assert job.outcome.error is not None
    assert job.outcome.error.message.startswith("name: ")
    assert (job.name, job.outcome.name, accepted_data_of_event(event).name) == (None, None, None)


def test_every_event_of_a_job_has_its_name() -> None:
    event = request(name=" Ledger October ")
    job = VALIDATOR.job(event, now=NOW)
    assert job.name == "Ledger October"
    assert request_event_of(job).data["name"] == "Ledger October"
    found = ExportRequest.parse(event.data)
    claim = Claim(event.job_id, 1, "w", 0, found, NOW)
    cancelled, failed = job.cancelled().outcome, job.failed(Rejected("no")).outcome
    assert cancelled is not None
    assert failed is not None
    datas = [accepted_data_of_event(event), cancelled, failed, *map(claim.lifecycle, Status)]
    assert {data.name for data in datas} == {"Ledger October"}


def test_a_request_that_fails_for_another_reason_keeps_its_name() -> None:
    event = request(name="Ledger October", priority="urgent")
    assert new_job(event, None, now=NOW).name == "Ledger October"


FILE = "ledger-2026-11-24-deleted.csv.gz"
REST = FILE.removeprefix("ledger")


@each_row(
    ("name", "saved"),
    [
        ("Ledger October", f"Ledger-October{REST}"),
        ("Übersicht – 10 % für שלום 📈", f"Übersicht-10-für-שלום{REST}"),
        ("हिन्दी", f"हिन्दी{REST}"),
        ("u\N{COMBINING DIAERESIS}ber", f"über{REST}"),
        ("../../etc/passwd", f"etc-passwd{REST}"),
        ("-rf .hidden", f"rf-hidden{REST}"),
        ("https://evil.example/?a=b", f"https-evil-example-a-b{REST}"),
        ("a\u202egnp.exe", f"a-gnp-exe{REST}"),
        ("ledger", FILE),
        ("📈 ?", FILE),
        ("❤️", FILE),
        ("❤️ Ledger", f"Ledger{REST}"),
        ("Ledger ❤️ 10", f"Ledger-10{REST}"),
        ("1️⃣ a", f"1⃣-a{REST}"),
        ("́Ledger", f"Ledger{REST}"),
        ("a_́b ?́", f"a_b{REST}"),
        ("ㅤﾠ", FILE),
        ("葛󠄀城", f"葛城{REST}"),
        ("", FILE),
        (None, FILE),
    ],
)
def test_a_file_is_saved_under_the_name_of_its_export(name: str | None, saved: str) -> None:
    """Without a sign that a file system, a shell or a mail program reads as more than a name (P7)."""
    assert download_name(FILE, "ledger", name) == saved
    assert download_name("manifest.json", "ledger", name) == "manifest.json"


@pytest.mark.parametrize("char", ["x", "ü", "語", "\N{MATHEMATICAL BOLD CAPITAL A}"])
def test_the_name_of_a_file_fits_every_file_system(char: str) -> None:
    begin = download_name(FILE, "ledger", char * 200).removesuffix(REST)
    assert MAX_BYTES - 4 < len(begin.encode()) <= MAX_BYTES
    assert set(begin) == {char}
