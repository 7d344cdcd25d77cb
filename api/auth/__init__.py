"""Authentication: bearer tokens, their claims and the keys that sign them."""
