"""Finds characters that the encoding of a database lacks. Pure.

PostgreSQL refuses a whole statement that has such a character.
"""

_ISO_8859 = {
    "LATIN1": 1, "LATIN2": 2, "LATIN3": 3, "LATIN4": 4, "LATIN5": 9, "LATIN6": 10, "LATIN7": 13, "LATIN8": 14,
    "LATIN9": 15, "LATIN10": 16, "ISO_8859_5": 5, "ISO_8859_6": 6, "ISO_8859_7": 7, "ISO_8859_8": 8,
}  # fmt: skip
_WINDOWS = (866, 874, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)

CODECS = {
    **{name: f"iso8859_{part}" for name, part in _ISO_8859.items()},
    **{f"WIN{page}": f"cp{page}" for page in _WINDOWS},
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
}
"""Python's names of PostgreSQL's encodings that have one byte for each character."""


def is_lacking(encoding: str, text: str) -> bool:
    """Return whether ``text`` has a character that ``encoding`` lacks.

    Of encodings that have several bytes for a character only PostgreSQL knows it: for them it is ``False``.
    """
    if text.isascii() or encoding not in CODECS:
        return False
    try:
        text.encode(CODECS[encoding])
    except UnicodeEncodeError:
        return True
    return False
