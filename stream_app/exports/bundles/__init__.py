"""Exports of bundles: several datasets in one file, a workbook or a zip archive."""
