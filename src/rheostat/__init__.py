"""Rheostat: typed settings, rules and live changes over Connect RPC."""
