"""The mask ``iban``: the country and the last four characters of a bank account's number (ISO 13616)."""

from stream_app.plugins import INTERFACE, Column, Mask, text_of


class IbanMask(Mask):
    """``DE****3000`` for ``DE89 3704 0044 0532 0130 00``; ``****`` for a text that is no IBAN."""

    interface = INTERFACE
    name = "iban"

    def sql(self, column: Column) -> str:
        """Return the SQL expression of the masked value. NULL stays NULL."""
        compact = f"replace({text_of(column)}, ' ', '')"
        return (
            f"CASE WHEN {compact} ~ '^[A-Z]{{2}}[0-9]{{2}}[A-Z0-9]{{11,30}}$'"
            f" THEN left({compact}, 2) || '****' || right({compact}, 4)"
            f" WHEN {text_of(column)} IS NOT NULL THEN '****' END"
        )
