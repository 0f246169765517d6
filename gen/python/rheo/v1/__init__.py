"""Version 1 of the Rheostat protocol, generated from `proto/rheo/v1`."""
