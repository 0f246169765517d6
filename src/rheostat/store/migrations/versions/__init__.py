"""One script for each step. A released script is never changed."""
