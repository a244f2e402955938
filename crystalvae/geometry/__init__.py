"""Lattices and tori in pure torch, any leading batch shape, float32 and float64."""
