"""Parts of ``mustdrop profile``: its plan, its thresholds, its record and its summary."""
