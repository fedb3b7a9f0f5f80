"""The board: a static site of leaderboards made from packs."""
