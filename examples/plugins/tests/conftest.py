"""The fixtures of the service's conformance suite."""

pytest_plugins = ["stream_app.plugins.conformance.pytest_plugin"]
