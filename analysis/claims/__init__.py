"""Claims of the paper and of this project, judged on runs."""
