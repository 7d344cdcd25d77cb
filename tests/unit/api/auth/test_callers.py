"""Of a token only the roles and claims that the dataset names reach a request."""

import time
from typing import Any

import pytest

from api.auth.authenticator import User
from api.auth.callers import caller_for, can_see, claims_for, kept_claims
from stream_app.datasets.models import ColumnSettings, Dataset, Scope, SessionValue
from streaming_exporter.payloads import ExportRequest
from tests.rows import each_row
from tests.unit.api.auth.tokens import raw, shared, signature_of

ORDERS = Dataset(
    name="orders",
    table="orders",
    owner="customer_id",
    roles=("orders",),
    column_settings={
        "margin": ColumnSettings(roles=("finance",)),
        "email": ColumnSettings(mask="email", unmasked_for=("pii",)),
    },
    scopes={
        "organisation": Scope(column="org", claim="org", roles=("org-admin",)),
        "url": Scope(column="org", claim="https://example.com/org"),
        "deep": Scope(column="org", claim="tenant.id"),
        "mine": Scope(column="customer_id"),
    },
    session={"app.tenant": SessionValue(claim="tid")},
)
PLAIN = Dataset(name="plain", table="plain", owner="user_id")


async def user_of(**claims: Any) -> User:
    content = {"sub": "u", "exp": int(time.time()) + 60, **claims}
    unsigned = raw({"alg": "HS256"}, content).rpartition(".")[0]  # with escapes, also of half surrogates
    return await shared().user(f"{unsigned}.{signature_of(unsigned)}")


async def test_a_request_carries_what_the_dataset_names_and_nothing_else() -> None:
    user = await user_of(
        roles=["orders", "pii", "unrelated", "exports:all"],
        org=["acme", "globex"],
        tid="t-1",
        tenant={"id": 7, "name": "secret"},
        email="u@example.com",
        **{"https://example.com/org": "acme"},
    )
    assert claims_for(user, ORDERS) == {
        "https://example.com/org": "acme",
        "org": ["acme", "globex"],
        "roles": ["orders", "pii"],
        "tenant.id": "7",
        "tid": "t-1",
    }
    assert claims_for(user, PLAIN) == {}
    assert claims_for(user, None) == {}
    caller = caller_for(user, ORDERS)
    assert (caller.user_id, sorted(caller.roles)) == ("u", ["orders", "pii"])
    assert caller.values_of("org") == ("acme", "globex")


@each_row(
    ("value", "claim"),
    [
        ("acme", "acme"), (7, "7"), (True, "true"), (["a", 1, False], ["a", "1", "false"]),
        (["a"] * 200, ["a"] * 200), ("x" * 1000, "x" * 1000), ("ä\u4e2d", "ä\u4e2d"),
        ("", None), ([], None), (None, None), (1.5, None), ({"acme": {}}, None), ([["a"]], None),
        (["a", None], None), (["a"] * 201, None), ("x" * 1001, None), (["a", "x" * 1001], None),
        ("a\0b", None), ("\ud800", None),
        ([""], None),
    ],
)  # fmt: skip
async def test_a_claim_that_cannot_be_compared_is_missing(value: Any, claim: Any) -> None:
    """It is never cut, which would leave out rows; and what is taken is valid in a request."""
    user = await user_of(roles=["orders"], org=value)
    found = claims_for(user, ORDERS)
    assert found.get("org") == claim
    ExportRequest.parse({"user_id": "u", "export_type": "orders", "format": "csv", "claims": found})


async def test_the_role_for_all_data_is_kept_where_roles_matter() -> None:
    user = await user_of(roles=["exports:admin"])
    assert can_see(user, ORDERS)
    assert claims_for(user, ORDERS) == {"roles": ["exports:admin"]}
    assert claims_for(user, PLAIN) == {}
    assert not can_see(await user_of(roles=["pii"]), ORDERS)


@pytest.mark.parametrize(
    ("known", "now", "kept"),
    [
        (None, {"org": "acme"}, None),
        ({"org": "acme"}, {"org": "acme"}, {"org": "acme"}),
        ({"org": "acme"}, {"org": ["acme", "globex"]}, {"org": "acme"}),
        ({"org": ["acme", "globex"]}, {"org": "acme"}, {"org": ["acme"]}),
        ({"org": "acme"}, {"org": "globex"}, None),
        ({"roles": ["a", "b"], "org": "acme"}, {"roles": ["b", "c"]}, {"roles": ["b"]}),
        ({"roles": ["a"]}, {}, None),
    ],
)
def test_a_call_keeps_of_known_claims_what_the_token_still_has(known: Any, now: Any, kept: Any) -> None:
    assert kept_claims(known, now) == kept
