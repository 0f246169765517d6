"""A relay: what one upstream stream for each environment brings, served as the node that it comes from would.

It makes no revision, generation or nonce of its own, and serialises tokens under the store's key, so that clients
may move between nodes and relays both ways.
"""
