"""The language of files for people, and their words for truth values. Pure."""

from dataclasses import dataclass

from stream_app.locales import boolean_words
from stream_app.messages.catalogue import DEFAULT, known_language
from streaming_exporter.events import Options

PLAIN_BOOLEANS = ("true", "false")
"""What stands for truth values in a file without a language, or in one whose words are not known."""


@dataclass(frozen=True, slots=True)
class FileWords:
    """The words of one file.

    Attributes:
        language: the language of the messages in it: English if a file's language has none.
        yes, no: what stands for true and false; ``true`` and ``false`` if no language was asked for.
    """

    language: str = DEFAULT
    yes: str = PLAIN_BOOLEANS[0]
    no: str = PLAIN_BOOLEANS[1]

    @classmethod
    def of(cls, options: Options) -> "FileWords":
        """Return the words in ``options.language``, or else in the language of ``options.locale``."""
        tag = options.language or options.locale
        if tag is None:
            return cls()
        yes, no = boolean_words(tag) or PLAIN_BOOLEANS
        return cls(known_language(tag) or DEFAULT, yes, no)

    @property
    def booleans(self) -> tuple[str, str]:
        """The words for true and false."""
        return self.yes, self.no

    def boolean(self, value: bool) -> str:
        """Return the word for a truth value."""
        return self.yes if value else self.no
