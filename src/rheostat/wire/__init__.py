"""Translation between the model and the messages of `rheo.v1`; only translation, no policy.

Each kind of thing has some of these functions:

- ``x_to_proto(x)`` makes a message; ``fill_x(message, x)`` writes into an empty part of another one, uncopied.
- ``x_from_proto(message)`` reads what a peer answered. It is lenient, because the peer may be newer: what this
  version does not know becomes `rheostat.model.condition.Unrecognized`, None or `ABSENT`.
- ``x_from_request(message, field)`` reads what a caller asks for. It is strict: an error names the wrong place by
  its path, which starts with *field*.

All are pure and safe from any thread.
"""
