"""Data: readers, preparation and packed data sets. Knows nothing of models."""
