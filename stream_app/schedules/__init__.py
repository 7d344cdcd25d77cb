"""Standing orders: when they are due, which rows each run stands for, and what becomes of the runs."""
