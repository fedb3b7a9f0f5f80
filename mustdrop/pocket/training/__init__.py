"""Training of the packaged model. No other package of mustdrop imports it."""
