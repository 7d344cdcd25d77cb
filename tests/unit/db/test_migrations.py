"""Revisions of the tables are compared by the names of the migrations' files."""

from alembic.script import ScriptDirectory

from stream_app.db.migrations import HERE, is_newer, missing


def test_missing_revisions_are_those_of_the_chain_of_migrations() -> None:
    """Newest first, after each revision, after none, and after one that this version does not know yet."""
    scripts = ScriptDirectory(str(HERE))
    chain = [script.revision for script in scripts.walk_revisions()]
    assert missing(None) == missing("") == chain
    for place, revision in enumerate(chain):
        assert missing(revision) == chain[:place]
        assert not is_newer(revision)
    newer = f"{int(chain[0]) + 1:04}"
    assert missing(newer) == []
    assert is_newer(newer)
    assert not is_newer(None)
