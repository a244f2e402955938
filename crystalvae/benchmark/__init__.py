"""Benchmarks: published metrics as defined, and better ones."""
