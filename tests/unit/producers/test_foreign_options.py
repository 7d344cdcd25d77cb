"""The command refuses options that the chosen format does not have, before it publishes a request."""

import pytest
from typer.testing import CliRunner

from producers import job_commands
from producers.__main__ import cli
from producers.job_commands import OWN_OPTIONS, refuse_foreign_options
from stream_app.exports.format_options import refuse_foreign_options as refuse_in_the_api
from stream_app.exports.formats.registry import _ALL
from streaming_exporter.errors import Rejected, UsageError
from streaming_exporter.events import Options
from tests.rows import each_row

FORMATS = {item.name: item for item in _ALL}


def test_all_formats_of_the_service_are_known() -> None:
    assert OWN_OPTIONS.keys() == FORMATS.keys()


@each_row("name", OWN_OPTIONS)
@each_row("option", Options.model_fields)
def test_the_command_refuses_what_the_api_refuses(name: str, option: str) -> None:
    try:
        refuse_in_the_api([option], FORMATS[name])
    except Rejected:
        with pytest.raises(UsageError, match=f"the format {name} has no option {option}; leave it out"):
            refuse_foreign_options(name, {option: "x"})
    else:
        refuse_foreign_options(name, {option: "x"})


def test_formats_of_other_packages_can_have_any_option() -> None:
    refuse_foreign_options("theirs", dict.fromkeys(Options.model_fields, "x"))


def test_nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(*_: object) -> None:
        pytest.fail("it was published")

    monkeypatch.setattr(job_commands, "publish_request", publish)
    given = ["--export-type", "ledger", "--format", "excel", "--user-id", "u", "--option", "delimiter=;"]
    result = CliRunner().invoke(cli, ["request", *given])
    assert result.exit_code == 2
    assert "the format excel has no option delimiter; leave it out; allowed:" in result.stderr
