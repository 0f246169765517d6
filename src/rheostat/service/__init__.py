"""The use cases of a node: planning and committing change-sets, reading, evaluating, watching."""
