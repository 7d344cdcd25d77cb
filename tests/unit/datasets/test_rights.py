"""Properties of rights: for any datasets file and any callers, what one sees depends on their roles alone."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.datasets.caller import ALL_DATA, Caller
from stream_app.datasets.models import ColumnSettings, Dataset, Scope, SessionValue
from stream_app.datasets.rights import (
    find_dataset,
    has_own_rows,
    hidden_columns,
    masked_columns,
    named_claims,
    named_roles,
    row_choice,
    scope_columns,
    usable_scopes,
    visible_dataset,
)
from stream_app.exports.columns import Column, Kind
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.tables.rights import shows_planner_numbers, visible_table
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest

ROLES = ["finance", "pii", "admin-of-org", "support"]
COLUMNS = ["c_id", "c_owner", "c_org", "c_total", "c_margin", "c_email", "c_time"]
NAMES = ["orders", "vault", "people"]

roles = st.lists(st.sampled_from(ROLES), unique=True, max_size=3).map(tuple)
some_roles = st.none() | st.lists(st.sampled_from(ROLES), unique=True, min_size=1, max_size=2).map(tuple)


masks = st.none() | st.sampled_from(["null", "hash", "email", "last4"])
some_columns = st.none() | st.lists(st.sampled_from(COLUMNS), unique=True, min_size=1).map(tuple)
orders = st.none() | st.lists(st.sampled_from(COLUMNS), unique=True, max_size=3).map(tuple)
owners = st.none() | st.just("c_owner")
times = st.none() | st.just("c_time")


@st.composite
def _column_settings(draw: st.DrawFn) -> ColumnSettings:
    mask = draw(masks)
    return ColumnSettings(mask=mask, unmasked_for=draw(roles) if mask else (), roles=draw(some_roles))


# Made once: hypothesis would examine those that are made in a function for each example.
column_settings = st.dictionaries(st.sampled_from(COLUMNS), _column_settings(), max_size=4)
scopes = st.dictionaries(
    st.sampled_from(["own", "organisation", "region"]),
    st.builds(
        Scope, column=st.sampled_from(COLUMNS), claim=st.sampled_from(["sub", "org", "a.b"]), roles=some_roles
    ),
    max_size=2,
)
sessions = st.dictionaries(
    st.just("app.tenant"), st.builds(SessionValue, claim=st.sampled_from(["org", "t"]))
)


@st.composite
def datasets(draw: st.DrawFn, name: str = "orders") -> Dataset:
    return Dataset(
        name=name,
        table=f"t_{name}",
        columns=draw(some_columns),
        owner=draw(owners),
        time=draw(times),
        order=draw(orders),
        roles=draw(some_roles),
        column_settings=draw(column_settings),
        scopes=draw(scopes),
        session=draw(sessions),
    )


callers = st.builds(
    Caller,
    user_id=st.just("ada"),
    roles=st.frozensets(st.sampled_from(ROLES), max_size=4),
    claims=st.dictionaries(
        st.sampled_from(["org", "a.b"]), st.sampled_from(["acme", ("acme", "globex"), "", ()])
    ),
)


def table_of(dataset: Dataset) -> SourceTable:
    every = {name: Column(name, "text", "text", Kind.TEXT, cast="pg_catalog.text") for name in COLUMNS}
    return SourceTable(
        dataset=dataset,
        schema="public",
        name="t",
        columns=tuple(every[name] for name in dataset.columns or COLUMNS),
        all_columns=every,
        primary_key=("c_id", "c_email"),
    )


def answer(dataset: Dataset, caller: Caller, **request: Any) -> str:
    """Return the SQL of a request, or the text of its error."""
    claims: dict[str, Any] = {
        name: value if isinstance(value, str) else list(value) for name, value in caller.claims.items()
    }
    claims["roles"] = sorted(caller.roles)
    data = {
        "user_id": caller.user_id,
        "export_type": dataset.name,
        "format": "csv",
        "claims": claims,
        **request,
    }
    try:
        table = visible_table(table_of(dataset), caller)
        return render(row_query(table, ExportRequest.parse(data)).select)
    except Rejected as error:
        return f"{error.code}: {error}"


requests = st.fixed_dictionaries(
    {"scope": st.sampled_from(["own", "all", "organisation", "region", "nowhere"])},
    optional={
        "columns": st.lists(st.sampled_from([*COLUMNS, "c_none"]), unique=True, min_size=1, max_size=4),
        "filters": st.dictionaries(st.sampled_from([*COLUMNS, "c_none"]), st.just("x"), max_size=2),
    },
)


@given(dataset=datasets(), caller=callers, request=requests)
def test_no_answer_has_a_hidden_column(dataset: Dataset, caller: Caller, request: dict[str, Any]) -> None:
    """It is in no statement and in no error, unless the caller wrote it or a scope compares it."""
    hidden = hidden_columns(dataset, caller)
    text = answer(dataset, caller, **request)
    asked = {*request.get("columns", ()), *request.get("filters", ())}
    compared = {scope.column for scope in dataset.scopes.values()} | {dataset.owner}
    for name in hidden - asked - compared:
        assert name not in text
    for name in hidden & asked:
        assert text.startswith(("unknown_", "missing_", "scope_", "invalid_", "no_"))
        assert "allowed" not in text or name not in text.partition("allowed: ")[2]


@given(dataset=datasets(), caller=callers, request=requests)
def test_a_hidden_column_is_answered_as_one_that_does_not_exist(
    dataset: Dataset, caller: Caller, request: dict[str, Any]
) -> None:
    for name in hidden_columns(dataset, caller):
        texts = [
            [
                answer(dataset, caller, scope=request["scope"], columns=[wanted]),
                answer(dataset, caller, scope=request["scope"], filters={wanted: "x"}),
            ]
            for wanted in (name, "c_none")
        ]
        assert [text.replace(name, "c_none") for text in texts[0]] == texts[1]


@given(dataset=datasets(), caller=callers, request=requests)
def test_values_of_masked_columns_decide_nothing(
    dataset: Dataset, caller: Caller, request: dict[str, Any]
) -> None:
    """They are neither in a condition, except of a scope, nor in the order."""
    table = visible_table_or_none(dataset, caller)
    if table is None:
        return
    masked = set(masked_columns(dataset, caller))
    text = answer(dataset, caller, **request)
    for name in masked & {item.name for item in table.columns}:
        assert answer(dataset, caller, scope="all", filters={name: "x"}).startswith("masked_column: ")
    order = re.search(r"ORDER BY (.*)", text)
    ordered = set(re.findall(r'"(\w+)"', order[1])) if order else set()
    assert not ordered & (masked | hidden_columns(dataset, caller))
    assert not set(table.primary_key) & (masked | hidden_columns(dataset, caller))
    assert table.dataset.time not in masked | hidden_columns(dataset, caller)


def visible_table_or_none(dataset: Dataset, caller: Caller) -> SourceTable | None:
    try:
        return visible_table(table_of(dataset), caller)
    except Rejected:
        return None


@given(dataset=datasets(), caller=callers, more=st.frozensets(st.sampled_from(ROLES)))
def test_more_roles_never_show_less(dataset: Dataset, caller: Caller, more: frozenset[str]) -> None:
    stronger = Caller(caller.user_id, caller.roles | more, caller.claims)
    few, many = visible_table_or_none(dataset, caller), visible_table_or_none(dataset, stronger)
    if few is None:
        return
    assert many is not None
    assert {item.name for item in few.columns} <= {item.name for item in many.columns}
    plain = {item.name for item in few.columns if item.mask is None}
    assert plain <= {item.name for item in many.columns if item.mask is None}
    assert set(usable_scopes(dataset, caller)) <= set(usable_scopes(dataset, stronger))


@given(dataset=datasets(), caller=callers, request=requests)
def test_what_a_dataset_does_not_name_changes_nothing(
    dataset: Dataset, caller: Caller, request: dict[str, Any]
) -> None:
    """So a request needs no other roles and claims, and carries none."""
    claims = {name: value for name, value in caller.claims.items() if name in named_claims(dataset)}
    least = Caller(caller.user_id, caller.roles & named_roles(dataset), claims)
    assert answer(dataset, least, **request) == answer(dataset, caller, **request)


@given(dataset=datasets(), caller=callers)
def test_the_role_for_all_data_shows_everything(dataset: Dataset, caller: Caller) -> None:
    everything = Caller(caller.user_id, frozenset({ALL_DATA}), caller.claims)
    table = visible_table(table_of(dataset), everything)
    assert table == table_of(dataset)
    assert named_roles(dataset) == frozenset() or ALL_DATA in named_roles(dataset)


@given(dataset=datasets(), caller=callers)
def test_a_dataset_without_rights_costs_nothing(dataset: Dataset, caller: Caller) -> None:
    plain = dataset.model_copy(update={"roles": None, "column_settings": {}})
    table = table_of(plain)
    assert visible_table(table, caller) is table
    assert visible_dataset(plain, caller) is plain


@pytest.mark.unmeasured  # the other tests reach the same lines
@given(
    files=st.tuples(*(datasets(name) for name in NAMES)),
    caller=callers,
    wanted=st.sampled_from([*NAMES, "none"]),
)
def test_a_dataset_that_is_not_for_the_caller_does_not_exist(
    files: tuple[Dataset, ...], caller: Caller, wanted: str
) -> None:
    """The answer is the one of a file without these datasets."""
    every = {dataset.name: dataset for dataset in files}
    own = {name: dataset for name, dataset in every.items() if caller.has_any(dataset.roles)}

    def found(known: dict[str, Dataset]) -> str:
        try:
            return find_dataset(known, wanted, caller).name
        except Rejected as error:
            return f"{error.code} {error.field} {error}"

    assert found(every) == found(own)


@given(
    dataset=datasets(), caller=callers, name=st.sampled_from(["own", "all", "organisation", "region", "no"])
)
def test_a_scope_gives_rows_of_the_callers_claims_only(dataset: Dataset, caller: Caller, name: str) -> None:
    scope = dataset.scopes.get(name)
    try:
        choice = row_choice(dataset, name, caller)
    except Rejected as error:
        if scope is not None:
            assert error.code == ("missing_claim" if caller.has_any(scope.roles) else "scope_not_allowed")
        else:
            assert name not in ("all",)
            assert name != "own" or dataset.owner is None
        return
    if name == "all":
        assert choice is None
        return
    assert choice is not None
    assert name in usable_scopes(dataset, caller)
    claim = scope.claim if scope else "sub"
    known = "ada" if claim == "sub" else caller.claims[claim]
    allowed = {known} if isinstance(known, str) else set(known)
    assert choice.values
    assert set(choice.values) <= allowed - {""}
    assert choice.column == (scope.column if scope else dataset.owner)


def test_a_scope_cannot_compare_the_list_of_roles() -> None:
    """A request has only the roles that its dataset names."""
    for model in (Scope, SessionValue):
        with pytest.raises(ValueError, match="use another claim"):
            model.model_validate(
                {"column": "c_org", "claim": "roles"} if model is Scope else {"claim": "roles"}
            )


@pytest.mark.parametrize(
    ("claims", "values"),
    [
        ({"org": "acme"}, ("acme",)),
        ({"org": ("acme", "globex")}, ("acme", "globex")),
        ({"org": ("", "globex")}, ("globex",)),
        ({"org": ""}, None),
        ({"org": ()}, None),
        ({}, None),
        ({"sub": "eve"}, None),
    ],
)
def test_an_empty_claim_is_a_missing_one(claims: dict[str, Any], values: tuple[str, ...] | None) -> None:
    """Otherwise it would give the rows that belong to nobody."""
    dataset = Dataset(
        name="orders",
        table="t",
        scopes={"organisation": Scope(column="c_org", claim="org"), "own": Scope(column="c_owner")},
    )
    caller = Caller("ada", claims=claims)
    own = row_choice(dataset, "own", caller)
    assert own is not None
    assert own.values == ("ada",), "the claim sub is always the user's id"
    if values is None:
        with pytest.raises(Rejected, match="needs the claim 'org' of the user"):
            row_choice(dataset, "organisation", caller)
        return
    choice = row_choice(dataset, "organisation", caller)
    assert choice is not None
    assert choice.values == values


@pytest.mark.parametrize(
    ("scope", "session", "row_security", "shown"),
    [("all", {}, False, True), ("own", {}, False, False), ("org", {}, False, False),
     ("all", {"app.tenant": SessionValue(claim="org")}, False, False), ("all", {}, True, False)],
)  # fmt: skip
def test_estimates_of_the_planner_are_for_those_who_see_every_row(
    scope: str, session: dict[str, SessionValue], row_security: bool, shown: bool
) -> None:
    """S5: with row-level security they would count rows of other tenants."""
    table = table_of(Dataset(name="orders", table="t", session=session))
    table = SourceTable(
        table.dataset, "public", "t", table.columns, table.all_columns, (), has_row_security=row_security
    )
    request = ExportRequest.parse({"user_id": "u", "export_type": "orders", "format": "csv", "scope": scope})
    assert shows_planner_numbers(table, request) is shown


def test_a_caller_has_the_roles_and_claims_of_a_request() -> None:
    claims = {"org": "acme", "regions": ["eu", "us"], "roles": ["pii", "finance"]}
    caller = Caller.of_claims("ada", claims)
    assert (caller.user_id, sorted(caller.roles)) == ("ada", ["finance", "pii"])
    assert caller.claims == {"org": "acme", "regions": ("eu", "us")}
    assert Caller.of_claims("ada", {"roles": "pii"}).roles == {"pii"}
    assert Caller.of_claims("ada", None) == Caller("ada")
    request = ExportRequest.parse({"user_id": "ada", "export_type": "t", "format": "csv", "claims": claims})
    assert Caller.of(request) == caller


@pytest.mark.parametrize(
    ("roles", "claims", "usable"),
    [
        ([], {}, ["own"]),
        (["lead"], {}, ["own"]),
        ([], {"org": "acme"}, ["own", "organisation"]),
        (["lead"], {"org": "acme"}, ["own", "led", "organisation"]),
        (["lead"], {"org": ""}, ["own"]),
    ],
)
def test_a_scope_is_usable_with_its_role_and_its_claim(
    roles: list[str], claims: dict[str, Any], usable: list[str]
) -> None:
    scopes = {
        "led": Scope(column="c_org", claim="org", roles=("lead",)),
        "organisation": Scope(column="c_org", claim="org"),
    }
    dataset = Dataset(name="orders", table="t", owner="c_owner", scopes=scopes)
    assert usable_scopes(dataset, Caller("ada", frozenset(roles), claims)) == usable
    assert has_own_rows(dataset)
    assert scope_columns(dataset) == ("c_owner", "c_org")
    alone = dataset.model_copy(update={"owner": None})
    assert not has_own_rows(alone)
    assert usable_scopes(alone, Caller("ada", frozenset(roles), claims)) == usable[1:]
    own = alone.model_copy(update={"scopes": {"own": Scope(column="c_id")}})
    assert has_own_rows(own)


def test_what_is_not_closed_stays_as_it_is() -> None:
    settings = {
        "c_margin": ColumnSettings(roles=("finance",)),
        "c_email": ColumnSettings(mask="null"),
        "c_total": ColumnSettings(label="Total"),
    }
    dataset = Dataset(
        name="orders",
        table="t",
        time="c_time",
        columns=("c_total", "c_margin", "c_email", "c_time"),
        order=("c_time", "c_total", "c_margin", "c_id"),
        column_settings=settings,
    )
    seen = visible_dataset(dataset, Caller("ada"))
    assert seen.time == "c_time"
    assert seen.order == ("c_time", "c_total")
    assert seen.columns == ("c_total", "c_email", "c_time")
    assert seen.column_settings == {name: settings[name] for name in ("c_email", "c_total")}
    table = visible_table(table_of(dataset), Caller("ada"))
    assert [item.name for item in table.columns] == list(seen.columns)
    assert table.template_columns == dataset.columns
    assert visible_table(table, Caller("ada")) == table, "twice is as once"
