"""Scripts that compose a configuration, build the objects that it names, and run them."""
