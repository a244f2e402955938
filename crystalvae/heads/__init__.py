"""Decoder heads: each owns the distribution of one part of a crystal, and its loss."""
