"""Using a trained model: sampling, reconstruction."""
