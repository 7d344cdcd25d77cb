"""Faust agents: decode, call, emit. All decisions are made elsewhere."""
