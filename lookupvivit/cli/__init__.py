"""Shared command-line code of the tools."""
