"""What settings must agree in."""

import pytest
from pydantic import ValidationError

from stream_app.settings import Settings


def test_jobs_are_on_record_for_longer_than_their_files_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_RETENTION_DAYS", "400")
    with pytest.raises(ValidationError) as error:
        Settings(_env_file=None)
    (problem,) = error.value.errors()
    assert problem["loc"] == ("history_days",)
    assert problem["msg"].endswith("400 must be more than EXPORTER_RETENTION_DAYS, which is 400")
    monkeypatch.setenv("EXPORTER_HISTORY_DAYS", "401")
    assert Settings(_env_file=None).history.days == 401
