"""The conformance suite for plug-ins, which the tests of their packages use. It needs pytest and PostgreSQL.

``docs/plugins.md`` shows how to use it.
"""
