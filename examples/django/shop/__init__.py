"""A shop with a button that exports its ledger."""
