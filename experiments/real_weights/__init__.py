"""What only trained weights can show: sinks, rounding, stability, and layers without vision."""
