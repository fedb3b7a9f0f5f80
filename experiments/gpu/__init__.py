"""`make gpu`: what has to be measured on a GPU, in one command with a time limit (README.md)."""
