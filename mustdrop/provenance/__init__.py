"""What decides an answer: code, model files and benchmark rows, found on disk and hashed."""
