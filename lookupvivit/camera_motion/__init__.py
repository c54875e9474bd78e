"""Tests of camera motion models on videos that they were not made for."""
