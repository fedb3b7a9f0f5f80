"""The tracker's process: it reads a run's folder and sends its samples and final results."""
