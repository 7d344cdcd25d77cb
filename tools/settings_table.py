"""The table of all settings in ``docs/settings.md``, from the descriptions in the code."""

import re
from pathlib import Path

from stream_app.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=\n<!-- /settings -->)", re.DOTALL)


def table() -> str:
    """Return the table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        secret = hasattr(default, "get_secret_value")
        shown = "" if default is None else default.get_secret_value() if secret else default
        rows.append(
            f"| `EXPORTER_{name.upper()}` | {f'`{shown}`' if shown != '' else ''} | {field.description} |"
        )
    return "\n".join(rows)


def document() -> str:
    """Return the page with the present table."""
    return _TABLE.sub(lambda _: table(), PAGE.read_text("utf-8"))
