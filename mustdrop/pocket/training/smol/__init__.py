"""Training of PocketSmol. No other package of mustdrop imports it."""
