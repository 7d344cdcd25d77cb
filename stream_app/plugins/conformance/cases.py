"""Texts and names that every format has to write so that a reader finds them again."""

TEXTS: dict[str, list[str | None]] = {
    "no rows": [],
    "one row": ["one"],
    "all null": [None] * 5,
    "null beside empty": [None, "", None, ""],
    "quotes": ["'", '"', '""', "'\"'", '"quoted"', "a'b", '\\"', '",'],
    "line breaks": ["a\nb", "\n", "a\r\nb", "\r", "ends\n", "\nbegins", "\n\n"],
    "tabs": ["a\tb", "\t", "\ta", "a\t"],
    "commas": ["a,b", ",", ",,", "1,5"],
    "backslashes": ["\\", "\\\\", "\\n", "\\N", "\\.", "c:\\new\\t", "a\\"],
    "xml": ["<a>", "&amp;", "a & b", "]]>", "<!--", "<?x?>", "&#10;", "_x0041_"],
    "emoji": ["\U0001f600", "👩\u200d👩\u200d👧", "🇩🇪", "a\U0001f600b"],
    "combining marks": ["e\u0301", "é", "n\u0303", "\u0301", "Å"],
    "right to left": ["שלום", "\u202bעברית\u202c", "سلام abc"],
    "scripts": ["Ελλάδα", "Привет", "日本語", "한국어", "हिन्दी", "ไทย"],
    "control characters": ["\x01", "a\x02b", "\x0b\x0c", "\x1f", "\x7f", "\x85", "\u2028"],
    "long values": ["x" * 100_000, "é" * 50_000, "word " * 20_000],
    "what looks like another type": [
        "NULL",
        "true",
        "001",
        "1e5",
        "NaN",
        "-0",
        "12345678901234567890",
        "#N/A",
    ],
    "formulas": ["=SUM(A1)", "+1", "-1", "@cmd", "=1+1\n"],
    "spaces": [" ", "  a  ", "\u00a0", "\u3000a"],
}
"""Values of a text column, by what is special about them."""

NAMES = [
    'a"; DROP TABLE x; --',
    "select",
    "$1",
    "%s",
    ":name",
    "Ünï",
    "rows",
    "=1+1",
    "@x",
    "-y",
    "a b",
    "<&>",
]
"""Names of columns."""
