"""`make gpu`: all measurements that need a GPU, in one command with a time limit (README.md)."""
