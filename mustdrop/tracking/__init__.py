"""A run told to a service while it runs: from its folder, by a process of its own."""
