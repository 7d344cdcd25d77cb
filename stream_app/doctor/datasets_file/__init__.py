"""``exporter datasets``: checks the datasets file, and shows what a caller sees of a dataset."""
