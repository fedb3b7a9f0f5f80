"""The process that tells a run to a tracker: what it reads and what it says in the end."""
