"""Datasets: what can be exported, and by whom. The datasets file describes them."""
