"""The datasets file: what it can say, and what is refused."""

from pathlib import Path

import pytest

from stream_app.datasets.caller import Caller
from stream_app.datasets.file import DatasetsFile, DatasetsFileError, load_datasets
from stream_app.datasets.registry import Datasets
from streaming_exporter.events import ExportRequest

WHOLE = """
[sources.crm]
url_env = "CRM_DATABASE_URL"
connections = 4

[datasets.orders]
source = "crm"
query = "select * from shop.orders where region = :region"
label = "Orders"
labels = { de = "Bestellungen" }
formats = ["csv", "excel"]
max_rows = 1_000_000
retention_days = 2
roles = ["exports:orders"]
timezone = "Europe/Berlin"
only = ["id", "total", "email"]

[datasets.orders.parameters.region]
type = "text"
choices = ["emea", "apac"]
required = true

[datasets.orders.scopes]
own = { column = "customer_id" }
organisation = { column = "org_id", claim = "org", roles = ["org-admin"] }

[datasets.orders.session]
"app.tenant" = { claim = "org" }

[datasets.orders.columns.total]
label = "Total (EUR)"
format = "#,##0.00"
[datasets.orders.columns.email]
mask = "email"
unmasked_for = ["exports:pii"]
"""


def loaded(folder: Path, content: str) -> DatasetsFile:
    path = folder / "datasets.toml"
    path.write_text(content, encoding="utf-8")
    return load_datasets(path)


def test_every_key_is_read(tmp_path: Path) -> None:
    content = loaded(tmp_path, WHOLE)
    assert content.sources["crm"].url_env == "CRM_DATABASE_URL"
    orders = content.datasets["orders"]
    assert orders.columns == ("id", "total", "email")
    assert orders.column_settings["email"].unmasked_for == ("exports:pii",)
    assert orders.scopes["own"].claim == "sub"
    assert orders.session["app.tenant"].claim == "org"
    assert orders.parameters["region"].choices == ("emea", "apac")


def test_a_list_of_columns_stays_valid(tmp_path: Path) -> None:
    content = loaded(tmp_path, '[datasets.a]\ntable = "a"\ncolumns = ["x", "y"]')
    assert content.datasets["a"].columns == ("x", "y")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('table = "a"\nquery = "select 1"', "exactly one of table and query"),
        ('description = "neither"', "exactly one of table and query"),
        ('table = "a"\nparameters.x = {}', "parameters need a query"),
        ('table = "a"\nscopes.all = { column = "x" }', "reserved"),
        ('table = "a"\ncolumns.x = { unmasked_for = ["r"] }', "needs a mask"),
        ('table = "a"\ncolumns.x = { maks = "email" }', "columns.x.maks"),
        ('table = "a"\nroles = []', "datasets.a.roles"),
        ('table = "a"\nsource = "crm"', "there is no source 'crm'; allowed: default"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: str, reason: str) -> None:
    with pytest.raises(DatasetsFileError, match=reason):
        loaded(tmp_path, f"[datasets.a]\n{entry}")


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[sources.crm]\nurl_env = "CRM"')
    (tmp_path / "b.toml").write_text('[datasets.b]\nsource = "crm"\ntable = "b"')
    assert load_datasets(tmp_path).datasets["b"].source == "crm"
    (tmp_path / "c.toml").write_text('[datasets.b]\ntable = "b"')
    with pytest.raises(DatasetsFileError, match=r"datasets\.b: .*b\.toml has it too"):
        load_datasets(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetsFileError, match=r"no file \*\.toml"):
        load_datasets(tmp_path)


def test_the_registry_has_the_newest_content(tmp_path: Path) -> None:
    datasets = Datasets(loaded(tmp_path, '[datasets.a]\ntable = "a"'))
    assert "a" in datasets
    datasets.replace(loaded(tmp_path, '[datasets.b]\ntable = "b"'))
    assert "b" in datasets
    assert "a" not in datasets


def test_the_claims_of_a_request_are_those_of_its_caller() -> None:
    request = ExportRequest(
        user_id="u", export_type="a", format="csv", claims={"org": "acme", "teams": ["x"], "roles": ["r"]}
    )
    caller = Caller.of(request)
    assert caller == Caller("u", frozenset({"r"}), {"org": "acme", "teams": ("x",)})
    assert caller.has_any(("r", "s"))
    assert caller.has_any(None)
    assert not caller.has_any(("s",))
