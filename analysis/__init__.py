"""Records to tables, figures and statistics; published numbers beside them. Never loads a model."""
