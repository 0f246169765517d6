"""Generated messages and clients of the Rheostat protocol."""
