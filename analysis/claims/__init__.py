"""What the paper and we claim, judged on runs."""
