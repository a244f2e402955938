"""Is a crystal likely to be stable? An estimate before any potential."""
