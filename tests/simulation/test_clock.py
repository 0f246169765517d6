"""Wall clocks are set; nothing that waits minds."""

from __future__ import annotations

import datetime

from tests.simulation.world import World, scaled

JUMPS = (
    datetime.timedelta(hours=1),
    datetime.timedelta(hours=-2),
    datetime.timedelta(days=3653),
    datetime.timedelta(days=-7306),
)


def test_clocks_that_jump_end_no_stream_and_hold_up_nothing() -> None:
    with scaled():
        world = World(3)
        world.max_stream_age = 1800.0
        world.calm = True
        for host in world.hosts:
            host.start()
        for client in world.clients:
            client.start()
        world.clock.run_until(world.clock.now + 5.0)
        streams = [follower.stream for follower in world.followers]
        assert None not in streams
        for jump in JUMPS:
            world.clock.offset += jump
            world.commit_segment(f"after-{jump.days}")
            # Three heartbeats: as long as it takes to find that a stream is dead.
            world.clock.run_until(world.clock.now + 13.0)
            assert [client.missing() for client in world.clients] == [""] * len(world.clients)
            assert [follower.stream for follower in world.followers] == streams
