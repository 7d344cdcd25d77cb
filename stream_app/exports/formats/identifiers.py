"""Which whole numbers are identifiers and not amounts: their digits are never grouped. Pure."""

import re

from stream_app.exports.columns import Column, Kind

LAST_WORDS = frozenset(
    {
        *("id", "ids", "oid", "pid", "uid", "gid", "key", "ref", "reference", "identifier"),
        *("no", "nr", "num", "number", "nummer", "code", "seq", "sequence", "serial", "version", "revision"),
        *("year", "jahr", "zip", "zipcode", "postcode", "plz", "phone", "mobile", "fax", "tel", "port"),
        *("isbn", "ean", "gtin", "sku", "iban", "bic", "account", "konto", "pin", "epoch"),
    }
)
"""A whole number whose column's name ends with one of these words is an identifier."""

_ENDINGS = ("number", "nummer", "year", "jahr")
"""A whole number is also an identifier if the last word of its name ends so, as in ``ordernumber``."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")


def is_identifier(item: Column) -> bool:
    """Return whether the numbers of a column name something: ``customer_id``, ``invoice_no``, ``year``.

    A column is an identifier if it has whole numbers, and if it is part of a primary or foreign key, is
    numbered by the database (an identity column), has the type ``oid``, or has a name that ends with one of
    :data:`LAST_WORDS`. A column with a declared fraction is never one.
    """
    if item.kind is Kind.NUMERIC:
        if item.precision is None or item.precision[1] > 0:
            return False
    elif item.kind is not Kind.INTEGER:
        return False
    if item.is_key or item.base == "oid":
        return True
    words = _WORD.findall(item.name)
    last = words[-1].lower() if words else ""
    return last in LAST_WORDS or last.endswith(_ENDINGS)
