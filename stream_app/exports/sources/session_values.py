"""The values of a transaction's settings that row-level security depends on. Pure."""

import re

from stream_app.datasets.caller import SUBJECT, Caller
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import claim_values
from streaming_exporter.errors import Rejected

_UNSENDABLE = re.compile("[\x00\ud800-\udfff]")


def session_values(dataset: Dataset, caller: Caller) -> dict[str, str]:
    """Return the settings of the transactions in which rows of ``dataset`` are read for ``caller``.

    A claim with a list of texts becomes an array of PostgreSQL, such as ``{"a","b"}``, so that no text of the
    list can be taken for two.

    Raises:
        Rejected: the caller lacks a claim, or it is empty. A policy could take an empty setting for none.
    """
    return {name: _value(dataset, caller, item.claim) for name, item in dataset.session.items()}


def _value(dataset: Dataset, caller: Caller, claim: str) -> str:
    texts = claim_values(caller, claim, f"dataset {dataset.name!r}", field="claims")
    if any(_UNSENDABLE.search(text) for text in texts):
        raise Rejected(
            f"the claim {claim!r} has a character that PostgreSQL cannot store",
            code="bad_claim",
            field="claims",
        )
    if claim == SUBJECT or isinstance(caller.claims.get(claim), str):
        return texts[0]
    return f"{{{','.join(map(_element, texts))}}}"


def _element(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
