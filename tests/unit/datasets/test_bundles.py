"""Bundles in the datasets file, and who can ask for them."""

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.datasets.bundle_requests import check_bundle_request, member_request
from stream_app.datasets.bundles import Bundle, BundleSettings
from stream_app.datasets.caller import ALL_DATA, Caller
from stream_app.datasets.encryption import check_encryption
from stream_app.datasets.file import DatasetsFile, DatasetsFileError, load_datasets
from stream_app.datasets.models import Dataset, Scope, SessionValue
from stream_app.datasets.registry import Datasets
from stream_app.datasets.retention import retention_of
from stream_app.datasets.rights import find_dataset, named_claims, named_roles, usable_scopes
from stream_app.jobs.claim_pauses import PausedClaims
from stream_app.jobs.request_validator import RequestValidator
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.rows import each_row

DATASETS = """
[datasets.enrollments]
table = "enrollments"
owner = "user_id"
[datasets.ledger]
table = "ledger"
owner = "user_id"
[datasets.countries]
table = "countries"
"""


def loaded(folder: Path, bundles: str) -> DatasetsFile:
    path = folder / "datasets.toml"
    path.write_text(DATASETS + bundles, encoding="utf-8")
    return load_datasets(path)


def bundle_of(*members: Dataset, **settings: Any) -> Bundle:
    names = tuple(member.name for member in members)
    return Bundle.of(BundleSettings(name="all", datasets=names, **settings), members)


def dataset(name: str, **settings: Any) -> Dataset:
    return Dataset(name=name, **{"table": name, "owner": "user_id", **settings})


def test_every_key_is_read(tmp_path: Path) -> None:
    content = loaded(
        tmp_path,
        """
        [bundles.my_data]
        datasets = ["ledger", "enrollments"]
        label = "My data"
        labels = { de = "Meine Daten" }
        description = "Everything"
        roles = ["customer"]
        [bundles.my_data.filters.ledger]
        kind = "proof"
        created_at = { gte = 2026-01-01 }
        """,
    )
    bundle = content.bundles["my_data"]
    assert [member.name for member in bundle.members] == ["ledger", "enrollments"]
    assert (bundle.label, bundle.labels, bundle.roles) == ("My data", {"de": "Meine Daten"}, ("customer",))
    assert bundle.filters == {"ledger": {"kind": "proof", "created_at": {"gte": "2026-01-01"}}}
    assert list(content.datasets) == ["enrollments", "ledger", "countries"]
    assert set(Datasets(content)) == {*content.datasets, "my_data"}


def test_a_subject_access_has_every_dataset_with_owners(tmp_path: Path) -> None:
    bundle = loaded(tmp_path, '[bundles.me]\nkind = "subject_access"').bundles["me"]
    assert [member.name for member in bundle.members] == ["enrollments", "ledger"]


@pytest.mark.parametrize(
    ("bundle", "fault"),
    [
        ("", "it needs datasets"),
        ("datasets = []", "bundles.all.datasets"),
        ('datasets = ["ledgr"]', "no dataset 'ledgr'; did you mean ledger?"),
        ('datasets = ["ledger", "ledger"]', "'ledger' is repeated"),
        ('datasets = ["ledger"]\nfilters = { proofs = { id = 1 } }', "bundles.all.filters.proofs"),
        ('datasets = ["ledger"]\ntable = "ledger"', "there is no key 'table'"),
        ('datasets = ["ledger"]\nkind = "all"', "bundles.all.kind"),
        ('kind = "subject_access"\ndatasets = ["countries"]', "dataset 'countries' has no owner"),
    ],
)
def test_a_fault_is_reported_with_its_place(bundle: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetsFileError) as error:
        loaded(tmp_path, f"[bundles.all]\n{bundle}")
    assert fault in str(error.value)
    assert "datasets.toml:" in str(error.value)


def test_a_bundle_has_a_name_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DatasetsFileError, match="a dataset has this name too"):
        loaded(tmp_path, '[bundles.ledger]\ndatasets = ["enrollments"]')


def test_datasets_of_a_bundle_need_a_common_format() -> None:
    members = dataset("a", formats=("csv", "json")), dataset("b", formats=("json", "pdf")), dataset("c")
    assert bundle_of(*members).formats == ("json",)


def test_a_bundle_without_a_common_format_is_a_fault(tmp_path: Path) -> None:
    text = """
    [datasets.a]
    table = "a"
    formats = ["csv"]
    [datasets.b]
    table = "b"
    formats = ["pdf"]
    [bundles.all]
    datasets = ["a", "b"]
    """
    with pytest.raises(DatasetsFileError, match="no format that each of its datasets allows"):
        loaded(tmp_path, text)


@pytest.mark.parametrize(
    ("days", "expected"), [((None, None), 30), ((7, None), 7), ((90, None), 30), ((90, 40), 40), ((3, 2), 2)]
)
def test_the_strictest_retention_wins(days: tuple[float | None, ...], expected: float) -> None:
    members = [dataset(f"d{number}", retention_days=value) for number, value in enumerate(days)]
    assert retention_of(bundle_of(*members), 30) == timedelta(days=expected)


def test_one_dataset_that_must_be_encrypted_requires_it_for_the_bundle() -> None:
    bundle = bundle_of(dataset("a"), dataset("b", encrypt="required"))
    assert bundle.encrypt == "required"
    with pytest.raises(Rejected, match="dataset 'b' must be encrypted"):
        check_encryption(bundle, None, has_passwords=True)


ROLES = ["staff", "finance", "hr"]
some_roles = st.none() | st.lists(st.sampled_from(ROLES), unique=True, min_size=1, max_size=2).map(tuple)


@given(
    own=some_roles,
    of_members=st.lists(some_roles, min_size=1, max_size=3),
    roles=st.sets(st.sampled_from([*ROLES, ALL_DATA])),
)
def test_a_caller_needs_the_rights_of_the_bundle_and_of_each_dataset(
    own: tuple[str, ...] | None, of_members: list[tuple[str, ...] | None], roles: set[str]
) -> None:
    members = [dataset(f"secret{number}", roles=value) for number, value in enumerate(of_members)]
    bundle = bundle_of(*members, roles=own)
    known: dict[str, Dataset] = {member.name: member for member in members} | {"all": bundle}
    caller = Caller("u", frozenset(roles))
    allowed = [caller.has_any(value) for value in (own, *of_members)]
    if all(allowed):
        assert find_dataset(known, "all", caller) is bundle
        return
    with pytest.raises(Rejected) as error:
        find_dataset(known, "all", caller)
    visible = {member.name for member in members if caller.has_any(member.roles)}
    assert all(name not in str(error.value) for name in known.keys() - visible - {"all"})
    if not allowed[0]:
        assert error.value.code == "unknown_dataset"
    with pytest.raises(Rejected) as unknown:
        find_dataset(known, "nothing", caller)
    assert "all" not in str(unknown.value).partition("allowed: ")[2].split(", ")


def test_roles_and_claims_of_all_datasets_go_with_the_request() -> None:
    first = dataset("a", roles=("staff",), scopes={"team": Scope(column="team", claim="team")})
    second = dataset("b", session={"app.tenant": SessionValue(claim="org")})
    bundle = bundle_of(first, second, roles=("hr",))
    assert named_roles(bundle) == {"staff", "hr", ALL_DATA}
    assert named_claims(bundle) == {"team", "org"}


def test_a_bundle_has_the_scopes_of_each_dataset() -> None:
    team = {"team": Scope(column="team", claim="team")}
    caller = Caller("u", claims={"team": "red"})
    assert usable_scopes(bundle_of(dataset("a", scopes=team), dataset("b", scopes=team)), caller) == [
        "own",
        "team",
    ]
    assert usable_scopes(bundle_of(dataset("a", scopes=team), dataset("b")), caller) == ["own"]
    person = bundle_of(dataset("a", scopes=team), kind="subject_access")
    assert usable_scopes(person, caller) == ["own"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"scope": "team"}, "dataset 'a' of bundle 'all'"),
    ({"format": "excel", "columns": ["id"]}, "columns: bundle 'all' cannot have it"),
    ({"split": {"rows": 5}}, "split: bundle 'all' cannot have it"),
    ({"filters": {"c": {"id": 1}}}, "filters.c: bundle 'all' has no dataset 'c'"),
    ({"filters": {"a": {"id": 1}}}, "filters.a.id: the bundle limits this column already"),
    ({"filters": {"a.id": 1}}, "filters.a.id: the bundle limits this column already"),
    ({"filters": {"c.id": 1}}, "filters.c.id: bundle 'all' has no dataset 'c.id'"),
    ({"filters": {"b": {"id": 1}, "b.id": 2}}, "filters.b.id: the column is named twice"),
    ({"filters": {"b": 1, "b.id": 2}}, "filters.b.id: the column is named twice"),
]


@each_row(("fields", "text"), REFUSED)
def test_a_wrong_request_is_refused_before_it_is_admitted(fields: dict[str, Any], text: str) -> None:
    bundle = bundle_of(dataset("a"), dataset("b"), filters={"a": {"id": 2}})
    validator = RequestValidator(formats=("csv", "excel"), datasets={"all": bundle})
    with pytest.raises(Rejected) as error:
        validator.validate({"user_id": "u", "export_type": "all", "format": "csv", **fields})
    assert text in str(error.value)


def test_a_filter_can_name_dataset_and_column_with_a_dot() -> None:
    """Commands write filters as ``ledger.kind=proof``."""
    bundle = bundle_of(dataset("a"), dataset("b"), filters={"a": {"id": 2}})
    filters = {"a.kind": "x", "a": {"at": {"gte": "today"}}, "b.a.b": 1}
    request = ExportRequest(user_id="u", export_type="all", format="csv", filters=filters)
    check_bundle_request(bundle, request)
    first, second = (member_request(bundle, member, request).filters for member in bundle.members)
    assert first == {"id": 2, "at": {"gte": "today"}, "kind": "x"}
    assert second == {"a.b": 1}


def test_an_error_does_not_tell_that_a_bundle_filters_by_a_hidden_column() -> None:
    """Otherwise a caller could try names until one is the name of a column that does not exist for them."""
    hidden = dataset("a", column_settings={"risk": {"roles": ["staff"]}})
    bundle = bundle_of(hidden, filters={"a": {"risk": "high"}})
    fields = {"user_id": "u", "export_type": "all", "format": "csv"}
    for filters in ({"a": {"risk": 1}}, {"a": {"nose": 1}}):
        check_bundle_request(bundle, ExportRequest(filters=filters, **fields))
    seen = ExportRequest(filters={"a": {"risk": 1}}, claims={"roles": ["staff"]}, **fields)
    with pytest.raises(Rejected, match=r"filters\.a\.risk: the bundle limits this column already"):
        check_bundle_request(bundle, seen)


def test_a_paused_dataset_or_source_pauses_its_bundles() -> None:
    bundle = bundle_of(dataset("a"), dataset("b", source="crm"))
    known: dict[str, Dataset] = {member.name: member for member in bundle.members} | {"all": bundle}
    for scope in ("dataset:b", "source:crm"):
        paused = PausedClaims(frozenset([scope]))
        assert sorted(paused.datasets(known)) == ["all", "b"]
        assert [paused.scope_of(name, known[name], "u") for name in ("a", "b", "all")] == [None, scope, scope]


def test_names_of_bundles_are_as_those_of_datasets(tmp_path: Path) -> None:
    for name in ("a b", "ä", "", "a/b"):
        with pytest.raises(DatasetsFileError):
            loaded(tmp_path, f'[bundles."{name}"]\ndatasets = ["ledger"]')


def test_bundles_can_be_in_another_file_than_their_datasets(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[bundles.all]\ndatasets = ["ledger"]')
    (tmp_path / "b.toml").write_text('[datasets.ledger]\ntable = "ledger"')
    assert list(itertools.chain(load_datasets(tmp_path).bundles)) == ["all"]
