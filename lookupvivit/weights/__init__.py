"""Weights in and out: safetensors and JSON, strict and reported."""
