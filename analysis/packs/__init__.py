"""Packs: archives of finished runs for sharing. Writes, opens, checks and compares them."""
