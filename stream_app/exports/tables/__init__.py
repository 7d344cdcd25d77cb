"""The tables and queries of datasets, as the source database describes them and as callers see them."""
