"""Run folders: how a run is written, read, continued and repaired. Knows no model."""
