"""Training of the embedded model. Nothing outside this package imports it."""
