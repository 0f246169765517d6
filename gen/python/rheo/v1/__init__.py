"""Version 1 of the protocol, generated from `proto/rheo/v1`."""
