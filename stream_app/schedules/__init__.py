"""Schedules: when their runs are due, which rows each run exports, and how outcomes change a schedule."""
