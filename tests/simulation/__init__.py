"""The watch protocol under a deterministic simulation.

One seed is one run of a small world: a store that fails over and is restored, one to three nodes with the production
service and its watch sessions, and clients with the production core of the SDK, its watch loop, replica and cache. There
is one thread, no socket and no file, and time passes by a heap of events, so that half a minute takes a few
milliseconds and the same seed gives the same run, in every process. All messages between a node and a client are
encoded and decoded as on the wire.

- `clock`: the events, the monotonic and the wall clock.
- `network`: streams of frames; cuts, half-open and slow ones, requests that come twice.
- `store`: the shared store, and the way of each node to it. `disk`: the files of clients and relays.
- `follower`: drives a watch loop. `client` is one, with the core of the SDK on it.
- `node`: the production service and what drives its sessions. `relay`: the production branches, each with a follower,
  and sessions; so a relay is at both ends of the network.
- `writing`: what is written. `world`: a run, with its accidents, and its end, at which all must converge.
- `batch`: many runs. `bugs`: ten bugs, to see that they are caught.

The rules are in `tests.checking`, which the tests of real processes share. A seed that breaks one is replayed with
``python -m tests.simulation --seed N --trace``.
"""
