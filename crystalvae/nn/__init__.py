"""Parts that encoders, heads and the decoder share."""
