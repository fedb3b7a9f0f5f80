"""Run folders: writing, reading, continuing and repairing them. Knows no model."""
