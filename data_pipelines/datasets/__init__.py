"""Datasets: manifests of labelled videos, one reader per layout, and clips as samples."""
