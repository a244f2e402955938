"""What properties does a crystal have? Estimates from its structure."""
