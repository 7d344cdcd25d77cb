"""The URLs of sources come from variables; docs/sources.md shows them."""

from pathlib import Path

import pytest

from stream_app.datasets.file import DatasetsFile, DatasetsFileError, load_datasets
from stream_app.datasets.models import Dataset, SourceSettings
from stream_app.datasets.source_urls import source_urls
from stream_app.exports.sources.registry import Sources, call_pools, export_pools
from stream_app.settings import Settings
from streaming_exporter.errors import Outage
from tests.documents import ROOT
from tests.rows import each_row

URL = "postgresql://reader:hunter2@db:5432/crm"
CRM = '[sources.crm]\n\nurl_env = "CRM_DATABASE_URL"\n'


def content_of(folder: Path, text: str = CRM) -> DatasetsFile:
    path = folder / "datasets.toml"
    path.write_text(text, "utf-8")
    return load_datasets(path)


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CRM_DATABASE_URL", "CRM_DATABASE_URL_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_variables")
def test_the_url_is_in_a_variable_or_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(tmp_path)
    monkeypatch.setenv("CRM_DATABASE_URL", URL)
    assert source_urls(content)["crm"].get_secret_value() == URL
    monkeypatch.delenv("CRM_DATABASE_URL")
    secret = tmp_path / "secret"
    secret.write_text(URL + "\n")
    monkeypatch.setenv("CRM_DATABASE_URL_FILE", str(secret))
    url = source_urls(content)["crm"]
    assert url.get_secret_value() == URL
    secret.write_text(URL + "2")
    assert url.get_secret_value() == URL + "2"


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "the variable CRM_DATABASE_URL is not set; set it"),
        ({"CRM_DATABASE_URL": " "}, "the variable CRM_DATABASE_URL is not set; set it"),
        ({"CRM_DATABASE_URL": "mysql://u:hunter2@h/d"}, "CRM_DATABASE_URL: it is not a URL of PostgreSQL"),
        ({"CRM_DATABASE_URL": URL + "?hostaddr=1.2.3.4"}, "CRM_DATABASE_URL: its parameter hostaddr"),
        ({"CRM_DATABASE_URL_FILE": "/nowhere"}, "CRM_DATABASE_URL_FILE: '/nowhere' cannot be read"),
        ({"CRM_DATABASE_URL_FILE": "/x", "CRM_DATABASE_URL": URL}, "are both set"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    """The line has the file, the place and the variable, and never its value."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DatasetsFileError) as raised:
        source_urls(content_of(tmp_path))
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{tmp_path}/datasets.toml:3: sources.crm.url_env: ")
    assert reason in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "entry", [f'url = "{URL}"\nurl_env = "X"', f'url_env = "{URL}"', f'url = "{URL}"', f"url_env = ['{URL}']"]
)
def test_a_url_in_the_file_is_refused_with_a_hint_and_not_repeated(tmp_path: Path, entry: str) -> None:
    with pytest.raises(DatasetsFileError, match="set it in an environment variable, and name that") as raised:
        content_of(tmp_path, f"[sources.crm]\n{entry}")
    assert "hunter2" not in str(raised.value)


def test_the_example_of_the_document_is_valid(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "sources.md").read_text("utf-8")
    example = document.partition("```toml\n")[2].partition("```")[0]
    content = content_of(tmp_path, example)
    assert content.sources["crm"].connections == 8
    assert content.datasets["customers"].source == "crm"


@each_row("limit", [None, 2, 3, 4, 5, 8, 100, 1000])
@each_row("slots", [1, 4])
def test_the_pools_of_a_process_stay_within_the_limit_of_a_source(limit: int | None, slots: int) -> None:
    settings = Settings(worker_slots=slots, source_streams=2)
    exports, plans = (size.connections_for(limit) for size in export_pools(settings))
    calls, estimates = (size.connections_for(limit) for size in call_pools(calls=4, estimates=2))
    assert min(exports, calls, estimates) >= 1
    if limit is None:
        assert (exports, plans, calls, estimates) == (2 * slots + 1, 2 * slots + 1, 4, 2)
    else:
        assert exports + plans <= limit
        assert calls + estimates <= limit
        assert plans == 0 or plans >= 2, "one holds the snapshot, one tests it"


def test_a_replaced_source_is_retired_and_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B"):
        monkeypatch.setenv(name, URL)

    def content(**connections: int) -> DatasetsFile:
        return DatasetsFile(
            {name: SourceSettings(name=name, url_env=name, connections=n) for name, n in connections.items()}
        )

    in_a = Dataset(name="d", table="t", source="A")
    sources = Sources(Settings(), content(A=4, B=4), export_pools(Settings())[0])
    default, a, b = sources["default"], sources["A"], sources["B"]
    sources.replace(content(A=4, B=5))
    assert (sources["default"], sources["A"]) == (default, a)
    assert sources["B"] is not b
    assert sources.source_for(in_a) is a
    sources.replace(content(B=5))
    with pytest.raises(Outage, match="does not know the source 'A'"):
        sources.source_for(in_a)
    monkeypatch.delenv("B")
    kept = dict(sources)
    with pytest.raises(DatasetsFileError):
        sources.replace(content(B=5, A=4))
    assert dict(sources) == kept
