"""Checks that every installed plug-in is in use."""

from collections.abc import Iterable, Iterator

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.exports.plugins import Plugin

AREA = FindingFactory("plug-ins")


def check_plugins(plugins: Iterable[Plugin]) -> Iterator[Finding]:
    """Yield a problem for each plug-in that is refused, and one finding with those in use."""
    used = []
    for plugin in plugins:
        named = f"{plugin.name} ({plugin.group}) of {plugin.package}"
        if plugin.reason is None:
            used.append(named)
        else:
            yield AREA.problem(plugin.name, "refused_plugin", plugin=named, reason=plugin.reason)
    yield AREA.ok("in use", ", ".join(used) or "none")
