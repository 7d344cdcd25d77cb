"""Parquet files."""

import os
import sys

ALLOCATOR = "ARROW_DEFAULT_MEMORY_POOL"
"""The variable that names Arrow's allocator. Arrow reads it when it is loaded."""

if sys.platform == "linux":
    # The usual allocator keeps freed memory, which costs half as much memory again. An allocator that is set
    # later is not that of the Parquet writer.
    os.environ.setdefault(ALLOCATOR, "jemalloc")
