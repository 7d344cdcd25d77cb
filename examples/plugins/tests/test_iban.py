"""The mask ``iban`` passes the conformance suite of the service."""

from exporter_example_plugins.iban import IbanMask

from stream_app.plugins.conformance.masks import MaskConformance


class TestIban(MaskConformance):
    mask = IbanMask()
    examples = {
        "DE89370400440532013000": "DE****3000",
        "GB82 WEST 1234 5698 7654 32": "GB****5432",
        "de89370400440532013000": "****",
        "no number": "****",
        "": "****",
    }
