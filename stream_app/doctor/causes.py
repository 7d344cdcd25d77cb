"""Reports a cause once, though several checks of ``exporter doctor`` meet it."""

from dataclasses import dataclass, field

from stream_app.doctor.findings import Finding, State


@dataclass(slots=True)
class Causes:
    """The causes of the findings so far.

    If the object store is away, the checks of the bucket and of the clocks fail with the same text. A reader
    would look for two faults.
    """

    _seen: dict[str, Finding] = field(default_factory=dict)

    def first(self, finding: Finding) -> Finding | None:
        """Return ``finding``, or ``None`` if a finding that is as serious had the same text."""
        if finding.state is State.OK:
            return finding
        known = self._seen.setdefault(finding.what, finding)
        return finding if known is finding or known.state is not finding.state else None
