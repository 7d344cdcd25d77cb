"""The name of the object that lists the several files of a job, and what belongs to it. Pure."""

MANIFEST = "manifest.json"
"""Name of the object that lists the files of an attempt, if there are several. It is beside the files."""

MANIFEST_TYPE = "application/json"
"""Its media type."""


def is_part_of_result(key: str, result: str) -> bool:
    """Return whether the object ``key`` belongs to a job whose result is the object ``result``.

    That is the result itself, and everything in its folder if the result is a :data:`MANIFEST`.
    """
    folder, _, name = result.rpartition("/")
    return key == result or (name == MANIFEST and bool(folder) and key.startswith(f"{folder}/"))
