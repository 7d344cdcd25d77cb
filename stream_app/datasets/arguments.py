"""Parses the arguments of commands that are about datasets: claims and parameters. Pure."""

from collections.abc import Iterable, Sequence

from streaming_exporter.errors import UsageError


def parse_claims(pairs: Iterable[str], roles: Sequence[str] = ()) -> dict[str, str | list[str]]:
    """Parse claims: ``name=value`` is a text, ``name=a,b`` a list. ``roles`` become the claim ``roles``.

    Raises:
        UsageError: a pair has no equals sign.
    """
    claims: dict[str, str | list[str]] = {"roles": list(roles)} if roles else {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not found or not name:
            raise UsageError(f"--claim {pair!r}: expected NAME=VALUE or NAME=VALUE,VALUE")
        values = [part.strip() for part in text.split(",")]
        claims[name.strip()] = values if len(values) > 1 else values[0]
    return claims


def parse_parameters(pairs: Iterable[str]) -> dict[str, str]:
    """Parse parameters of a dataset's query: ``name=value``. The dataset knows the types of the values.

    Raises:
        UsageError: a pair has no equals sign, or a parameter is given twice.
    """
    parameters: dict[str, str] = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not found or not name.strip():
            raise UsageError(f"--parameter {pair!r}: expected NAME=VALUE")
        if name.strip() in parameters:
            raise UsageError(f"--parameter {pair!r}: {name.strip()} is given twice")
        parameters[name.strip()] = text
    return parameters
