"""Generated clients and messages of the Rheostat protocol."""
