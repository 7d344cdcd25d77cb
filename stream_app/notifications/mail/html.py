"""The HTML around the texts of a mail. Pure.

Mail programs that ignore style sheets have the colours of the attributes, which are those of the light
page. In others the style sheet has the colours of the dark page, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from string import Template


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a mail; those of the page in ``api/page/static/style.css``."""

    ground: str
    panel: str
    ink: str
    soft: str
    line: str
    accent: str
    accent_ink: str
    bad: str
    note: str


LIGHT = Palette(
    "#f6f5f2", "#ffffff", "#1d2220", "#5b6461", "#dfddd6", "#0f766e", "#ffffff", "#b3261e", "#b45309"
)
DARK = Palette(
    "#131716", "#1b201f", "#e8eae8", "#a2aca8", "#303735", "#5cc3b6", "#06201d", "#ff9d94", "#e0a458"
)

TEXT_ON = {"ink": "panel", "soft": "panel", "accent": "panel", "accent_ink": "accent"}
"""By the colour of a text: the colour behind it."""


@dataclass(frozen=True, slots=True)
class FactTable:
    """Names and values, of which the last ones are for support only and small."""

    main: Sequence[tuple[str, str]]
    small: Sequence[tuple[str, str]] = ()


def page(language: str, title: str, *parts: str, footer: str) -> str:
    """Return the document. ``parts`` and ``footer`` are HTML."""
    return _PAGE.substitute(language=language, title=escape(title), body="\n".join(parts), footer=footer)


def lead(words: str) -> str:
    """Return the first paragraph."""
    return f'<p class="ink" style="margin:0 0 16px;font-size:18px;font-weight:600">{escape(words)}</p>'


def paragraph(words: str) -> str:
    """Return a paragraph."""
    return f'<p style="margin:0 0 16px;word-break:break-word">{escape(words)}</p>'


def hint(words: str) -> str:
    """Return a paragraph of less weight."""
    style = f"margin:0 0 20px;color:{LIGHT.soft};font-size:13px"
    return f'<p class="soft" style="{style}">{escape(words)}</p>'


def remark(words: str, colour: str) -> str:
    """Return a paragraph with a bar at its side, of the colour ``bad`` or ``note``."""
    shade = getattr(LIGHT, colour)
    style = f"margin:0 0 16px;padding:8px 14px;border-left:4px solid {shade};word-break:break-word"
    return f'<p class="{colour}" style="{style}">{escape(words)}</p>'


def button(words: str, address: str) -> str:
    """Return a link that looks like the buttons of the page."""
    style = (
        f"display:inline-block;padding:11px 22px;border-radius:8px;background:{LIGHT.accent};"
        f"color:{LIGHT.accent_ink};text-decoration:none;font-weight:600"
    )
    link = f'<a class="button" href="{escape(address)}" style="{style}">{escape(words)}</a>'
    return f'<p style="margin:0 0 10px">{link}</p>'


def link(words: str, address: str) -> str:
    """Return a link in a text."""
    return f'<a class="soft" href="{escape(address)}" style="color:{LIGHT.soft}">{escape(words)}</a>'


def table(facts: FactTable) -> str:
    """Return the facts in two columns, the small ones below them."""
    return _rows(facts.main, "15px", LIGHT.ink) + (
        _rows(facts.small, "12px", LIGHT.soft) if facts.small else ""
    )


def _rows(facts: Sequence[tuple[str, str]], size: str, ink: str) -> str:
    name = (
        f"padding:3px 16px 3px 0;color:{LIGHT.soft};font-weight:normal;white-space:nowrap;vertical-align:top"
    )
    value = f"padding:3px 0;color:{ink};word-break:break-word"
    shade = "ink" if ink == LIGHT.ink else "soft"
    rows = "\n".join(
        f'<tr><th class="soft" align="left" scope="row" style="{name}">{escape(word)}</th>'
        f'<td class="{shade}" style="{value}">{escape(shown)}</td></tr>'
        for word, shown in facts
    )
    style = f"margin:0 0 16px;border-collapse:collapse;font-size:{size}"
    return f'<table cellpadding="0" cellspacing="0" style="{style}">\n{rows}\n</table>'


def _dark_rules() -> str:
    colours = {field.name: getattr(DARK, field.name) for field in fields(DARK)}
    return Template(
        ".ground{background:$ground!important}"
        ".panel{background:$panel!important;color:$ink!important;border-color:$line!important}"
        ".ink{color:$ink!important}.soft{color:$soft!important}"
        ".button{background:$accent!important;color:$accent_ink!important}"
        ".bad{border-color:$bad!important}.note{border-color:$note!important}"
        ".foot{border-color:$line!important;color:$soft!important}"
    ).substitute(colours)


_PAGE = Template(
    f"""\
<!DOCTYPE html>
<html lang="$language">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">\
<meta name="color-scheme" content="light dark"><meta name="supported-color-schemes" content="light dark">\
<title>$title</title><style>:root{{color-scheme:light dark}}\
@media (max-width: 420px){{th,td{{display:block;padding:0!important}}th{{padding-top:8px!important}}}}\
@media (prefers-color-scheme: dark){{{_dark_rules()}}}</style></head>
<body class="ground" style="margin:0;padding:24px 12px;background:{LIGHT.ground};\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif">
<div class="panel" style="max-width:560px;margin:0 auto;padding:24px;border:1px solid {LIGHT.line};\
border-radius:12px;background:{LIGHT.panel};color:{LIGHT.ink}">
$body
<p class="foot" style="margin:24px 0 0;padding-top:12px;border-top:1px solid {LIGHT.line};\
color:{LIGHT.soft};font-size:13px">
$footer</p>
</div>
</body>
</html>
"""
)
