"""The dialog of `exporter request` knows the filters of bundles."""

from collections.abc import Iterator
from typing import Any

import pytest

from producers.arguments import parse_filters
from producers.request_dialog import Dialog, RequestDraft
from stream_app.settings import Settings

CATALOGUE = {
    "formats": [{"name": "csv", "description": "text"}],
    "datasets": [
        {"name": "ledger", "columns": [{"name": "id"}, {"name": "kind"}], "formats": ["csv"], "bundle": None},
        {"name": "proofs", "columns": [{"name": "id"}], "formats": ["csv"], "bundle": None},
        {
            "name": "my_data",
            "columns": [],
            "formats": ["csv"],
            "bundle": {"kind": None, "datasets": ["ledger", "proofs"]},
        },
    ],
}


@pytest.fixture
def dialog(monkeypatch: pytest.MonkeyPatch) -> Dialog:
    monkeypatch.setattr(Dialog, "_catalogue", lambda *_: CATALOGUE)
    return Dialog(Settings(_env_file=None), None, None)


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    waiting: Iterator[str] = iter(answers)
    monkeypatch.setattr("builtins.input", lambda *_: next(waiting))


def test_the_filters_of_a_bundle_are_those_of_its_datasets(
    dialog: Dialog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, "kind=proof", "proofs.kind=proof", "ledger.kind=proof", "proofs.id<=5", "", "y")
    wanted = dialog.complete(
        RequestDraft("my_data", "csv", "u"), asks_for_filters=True, asks_for_output=False
    )
    shown = " ".join(capsys.readouterr().err.split())
    assert "Columns: ledger.id, ledger.kind, proofs.id" in shown
    assert "Filter, such as ledger.id=…" in shown
    assert "There is no column kind" in shown
    assert "There is no column proofs.kind" in shown
    assert wanted.filters == ("ledger.kind=proof", "proofs.id<=5")
    expected: dict[str, Any] = {"ledger.kind": "proof", "proofs.id": {"lte": "5"}}
    assert parse_filters(wanted.filters) == expected
    assert "--filter ledger.kind=proof --filter 'proofs.id<=5'" in shown


def test_the_filters_of_a_dataset_are_its_columns(
    dialog: Dialog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, "kind=proof", "", "y")
    wanted = dialog.complete(RequestDraft("ledger", "csv", "u"), asks_for_filters=True, asks_for_output=False)
    assert wanted.filters == ("kind=proof",)
    assert "Columns: id, kind" in capsys.readouterr().err
