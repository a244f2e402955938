"""Screening: which structures survive, and why the others do not. No torch here."""
