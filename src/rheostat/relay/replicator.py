"""Writes what a relay mirrors to Redis, for clients that read only that; `rheostat.sdk.redis_state` says how.

Several relays may write the same. What is there is never replaced by something older of the same store, and every
write says what it expects to find, so that whatever Redis has lost or mixed up is noticed and written anew.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from google.protobuf.message import DecodeError

from rheo.v1 import watch_pb2
from rheostat.errors import MissingDependencyError, RheostatError
from rheostat.model.position import Filter, scope_of
from rheostat.relay.branch import Branch
from rheostat.relay.relay import Relay
from rheostat.sdk.backoff import Backoff
from rheostat.sdk.held import Held, whole
from rheostat.sdk.redis_state import DEFAULT_PREFIX, HEAD, SILENT_BEATS, Layout, Written, made_from
from rheostat.service.publish import Head, ScopedView
from rheostat.wire.watch import item_to_proto, position_to_proto

__all__ = ["Copy", "Replicator"]

_BACKOFF: Final = (0.2, 5.0)
"""Seconds: the bound of the delay before the first attempt after Redis was away, and of the last."""

_BEATS: Final = 3
"""In one heartbeat of the relay: clients take three missed ones for its end."""

_CHECK_SECONDS: Final = 300.0
"""How often what Redis holds is read as clients do, and at the first beat."""

_LOG_STEPS: Final = 256

_LOG_BYTES: Final = 64 * 1024
"""Of one step: a larger one is not kept in the log, which bounds that, and clients fetch the state."""

_STEP_BYTES: Final = 1024 * 1024
"""What one write holds up other users of Redis for at most; more is written beside the state and put in its place."""

_KEEP_SECONDS: Final = 7 * 24 * 3600
"""How long Redis keeps what no relay writes any more; long, as new clients begin with it while all relays are away."""

_DRAFT_ITEMS: Final = 500
_DRAFT_SECONDS: Final = 120

_TRIES: Final = 5

_CLOSE_SECONDS: Final = 2.0

_LOOK_SECONDS: Final = 0.2
"""How often new environments are looked for while there is none."""

log = logging.getLogger("rheostat.relay")

# KEYS: head, items, log, beat, draft.
# ARGV: channel, whether all is replaced, the expected revision and digest, milliseconds after which the beat expires,
# how many steps the log keeps, the step for the log (empty: none, "-": it is too large), seconds after which all
# expires, how many fields of the head follow, those, and the items of a step: key and content, which is empty for one
# that is gone.
# Numbers come in a fixed width, so that they compare as text.
_WRITE: Final = """
local names = {'store', 'generation', 'nonce', 'revision', 'digest', 'count', 'origin', 'position', 'heartbeat', 'node',
  'hops', 'beats'}
local long = string.rep('%d', 20)
local shapes = {'%x+', long, '%x*', long, string.rep('%x', 16), '%d+', long, '.+', '%d+', '.+', '%d+',
  '%d' .. string.rep('%d?', 15)}
local kinds = {'hash', 'hash', 'zset', 'string'}
local sound = true
for at, kind in ipairs(kinds) do
  local is = redis.call('TYPE', KEYS[at]).ok
  if is ~= 'none' and is ~= kind then sound = false end
end
local found = sound and redis.call('HMGET', KEYS[1], unpack(names)) or {}
for at, shape in ipairs(shapes) do
  if sound and not (found[at] and string.find(found[at], '^' .. shape .. '$')) then sound = false end
end
if not sound then
  -- Nothing is there, or something that no relay has written.
  for at in ipairs(kinds) do redis.call('DEL', KEYS[at]) end
  found = {}
end
local count = tonumber(ARGV[9])
local new = {}
for at = 10, 9 + 2 * count, 2 do new[ARGV[at]] = ARGV[at + 1] end
local whole = ARGV[2] == '1'
local function answer(status)
  local complete = found[6] and redis.call('HLEN', KEYS[2]) == tonumber(found[6])
  redis.call('DEL', KEYS[5])
  return {status, found[1] or '', found[2] or '', found[3] or '', found[4] or '', complete and found[5] or '',
    found[8] or '', redis.call('EXISTS', KEYS[4])}
end
if found[1] then
  if found[1] ~= new.store then
    if redis.call('EXISTS', KEYS[4]) == 1 then return answer('foreign') end
    if not whole then return answer('changed') end
  elseif new.generation < found[2] then return answer('older')
  elseif new.generation == found[2] then
    if new.nonce ~= found[3] then return answer('forked') end
    if new.revision < found[4] then return answer('older') end
    if found[7] > new.origin then new.origin = found[7] end
  elseif not whole then return answer('changed') end
elseif not whole then return answer('changed') end
if not whole then
  if found[4] ~= ARGV[3] or found[5] ~= ARGV[4] then return answer('changed') end
  if redis.call('HLEN', KEYS[2]) ~= tonumber(found[6]) then return answer('changed') end
  for at = 10 + 2 * count, #ARGV, 2 do
    if ARGV[at + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[at])
    else redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
  end
  if ARGV[7] == '-' then redis.call('DEL', KEYS[3])
  elseif ARGV[7] ~= '' then
    redis.call('ZADD', KEYS[3], new.revision, ARGV[7])
    redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[6]))
  end
else
  if new.count == '0' then redis.call('DEL', KEYS[2])
  else
    if redis.call('HLEN', KEYS[5]) ~= tonumber(new.count) then return answer('changed') end
    redis.call('RENAME', KEYS[5], KEYS[2])
  end
  redis.call('DEL', KEYS[3])
end
for name, value in pairs(new) do redis.call('HSET', KEYS[1], name, value) end
redis.call('SET', KEYS[4], redis.call('HINCRBY', KEYS[1], 'beats', 1), 'PX', ARGV[5])
for at = 1, 3 do redis.call('EXPIRE', KEYS[at], ARGV[8]) end
if whole or found[4] ~= new.revision then redis.call('PUBLISH', ARGV[1], new.revision) end
found = redis.call('HMGET', KEYS[1], unpack(names))
return answer('written')
"""

# KEYS: the index. ARGV: a member, and the seconds after which it is gone.
_LIST: Final = """
local is = redis.call('TYPE', KEYS[1]).ok
if is ~= 'zset' then redis.call('DEL', KEYS[1]) end
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """What Redis holds of an environment.

    Attributes:
        status: What has become of the write: written, changed (something else was there than expected), older (this
            relay is behind), forked (another history of the same generation) or foreign (another store). Empty
            before the first.
        store: Hexadecimal, as the others; empty when there is nothing.
        generation: Decimal.
        nonce: Of the generation.
        revision: Decimal.
        digest: Empty when items are missing.
        position: Encoded.
        alive: A relay vouches for it.
    """

    status: str = ""
    store: str = ""
    generation: str = ""
    nonce: str = ""
    revision: str = ""
    digest: str = ""
    position: bytes = b""
    alive: bool = False

    @classmethod
    def of(cls, answer: Sequence[Any]) -> _Found:
        status, store, generation, nonce, revision, digest = (each.decode() for each in answer[:6])
        return cls(status, store, generation, nonce, revision, digest, answer[6], bool(answer[7]))

    def continues(self, head: Head) -> bool:
        """Tell whether it is an earlier state of the same history, or the same."""
        identity = head.identity
        return (
            bool(self.digest)
            and (self.store, self.nonce) == (identity.store_id.hex(), identity.nonce.hex())
            and int(self.generation) == identity.generation
            and int(self.revision) <= head.revision
        )


class Copy:
    """One environment in Redis, as one relay knows of it. Not for several threads.

    Attributes:
        branch: Where it comes from.
        layout: Its names.
        written: The head that was looked after last; None before the first.
    """

    def __init__(
        self, branch: Branch, redis: Any, *, prefix: str = DEFAULT_PREFIX, beat: float = 5.0
    ) -> None:
        """Name it; nothing is written yet.

        Args:
            branch: Where it comes from.
            redis: A client of Redis.
            prefix: What all names begin with.
            beat: Seconds between two updates at most.
        """
        self.branch = branch
        self.layout = Layout(prefix, branch.project, branch.environment)
        self.written: Head | None = None
        self._beat = beat
        self._redis = redis
        self._script = redis.register_script(_WRITE)
        self._list = redis.register_script(_LIST)
        self._found = _Found()
        # Of this process alone: two relays may have been given one name.
        self._draft = self.layout.name(f"draft:{secrets.token_hex(8)}")
        # How many times in a row Redis was ahead, and whether what it holds is another store's.
        self._ahead = 0
        self._foreign = False
        self._address = (branch.project, branch.environment)

    def update(self, *, check: bool = False) -> bool:
        """Bring Redis to the newest head, or only show that this relay is there.

        Args:
            check: Read all of it as clients do, and write it anew when they cannot.

        Returns:
            Redis holds that, or something newer of the same history that another relay vouches for.

        Raises:
            Exception: Of the client of Redis.
        """
        head = self.branch.head
        if head is None:
            return False
        # Each time, as Redis may have lost it.
        self._list(keys=[Layout.index(self.layout.prefix)], args=["/".join(self._address), _KEEP_SECONDS])
        for _ in range(_TRIES):
            self._found = self._write(head)
            match self._found.status:
                case "written":
                    if check and not self._readable():
                        log.warning(
                            "what Redis holds of %s/%s cannot be read: writing it anew", *self._address
                        )
                        check = False
                        # So that no step follows from it.
                        self._found = replace(self._found, digest="")
                        continue
                    self._ahead = 0
                    self._foreign = False
                    self.written = head
                    return True
                case "changed":
                    continue
                case "older" | "forked":
                    self._note_ahead()
                case "foreign" if not self._foreign:
                    self._foreign = True
                    log.error(
                        "Redis holds %s/%s of another store, which another relay keeps up to date",
                        *self._address,
                    )
            self.written = head
            return self._found.status == "older" and self._found.alive
        log.warning("others keep writing %s/%s to Redis", *self._address)
        return False

    def _readable(self) -> bool:
        """Tell whether the head, the items and the steps are what they say."""
        name = self.layout.name
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hmget(name("head"), *HEAD)
            pipeline.hgetall(name("items"))
            pipeline.zrange(name("log"), 0, -1)
            fields, items, steps = pipeline.execute()
        try:
            found = Written.of(fields)
            if found is None:
                return False
            messages = [watch_pb2.Item.FromString(item) for item in items.values()]
            whole(Held(), found.position, messages, found.count, found.digest)
            for step in steps:
                watch_pb2.Delta.FromString(step)
        except (RheostatError, DecodeError):
            return False
        return True

    def _note_ahead(self) -> None:
        """Ask the upstream about what is in Redis when it stays ahead of this relay.

        It may be of a history that the store has lost: a node then begins a generation, which brings both together.
        """
        self._ahead += 1
        if self._ahead < _BEATS:
            return
        self._ahead = 0
        with contextlib.suppress(DecodeError):
            position = watch_pb2.Position.FromString(self._found.position)
            log.info("Redis is ahead of this relay in %s/%s", *self._address)
            self.branch.doubt(position.token)

    def _write(self, head: Head) -> _Found:
        (view,) = head.views.values()
        scoped = view.scope(Filter())
        if self._found.status not in {"written", "changed"}:
            # What is expected is not there, so that this writes nothing, and tells what is.
            self._found = _Found()
            return self._run(head, scoped, ())
        step = self._step(head, scoped) if self._found.continues(head) else None
        if step is not None:
            logged, items = step
            return self._run(head, scoped, items, logged=logged)
        draft = self._draft
        self._redis.delete(draft)
        entries = scoped.entries()
        for at in range(0, len(entries), _DRAFT_ITEMS):
            with self._redis.pipeline(transaction=False) as pipeline:
                mapping = {
                    _field(entry.kind, entry.key): item_to_proto(entry).SerializeToString()
                    for entry in entries[at : at + _DRAFT_ITEMS]
                }
                pipeline.hset(draft, mapping=mapping)
                pipeline.expire(draft, _DRAFT_SECONDS)
                pipeline.execute()
        return self._run(head, scoped, (), whole=True)

    def _step(self, head: Head, scoped: ScopedView) -> tuple[bytes, list[str | bytes]] | None:
        """Return what leads from what Redis holds to *head*: the step for the log and the items; None when it is much."""
        held = int(self._found.revision)
        if held < scoped.view.floor:
            return None
        event = scoped.delta(held, scoped.position(head))
        if event is None:
            # The revisions in between have not touched this environment.
            return (b"", []) if int(self._found.digest, 16) == scoped.digest else None
        items = [item_to_proto(entry) for entry in event.entries]
        delta = watch_pb2.Delta(
            from_revision=event.from_revision,
            position=position_to_proto(event.position, head.identity.token_key),
            items=items,
            coalesced=event.coalesced,
            digest=event.digest,
        ).SerializeToString()
        if len(delta) > _STEP_BYTES:
            return None
        arguments: list[str | bytes] = []
        for item in items:
            arguments += [_field(item.kind, item.key), b"" if item.deleted else item.SerializeToString()]
        return (b"-" if len(delta) > _LOG_BYTES else delta), arguments

    def _run(
        self,
        head: Head,
        scoped: ScopedView,
        items: Sequence[str | bytes],
        *,
        whole: bool = False,
        logged: bytes = b"",
    ) -> _Found:
        name = self.layout.name
        identity = head.identity
        position = head.position(scope_of(self.layout.project, self.layout.environment, Filter()))
        count = len(scoped.view.snapshot.settings) + len(scoped.view.snapshot.segments)
        fields: dict[str, str | bytes] = {
            "store": identity.store_id.hex(),
            "generation": f"{identity.generation:020d}",
            "nonce": identity.nonce.hex(),
            "revision": f"{head.revision:020d}",
            "digest": f"{scoped.digest:016x}",
            "count": str(count),
            "position": position_to_proto(position, identity.token_key).SerializeToString(),
            "origin": f"{max(0, round(self.branch.origin_time.timestamp() * 1000)):020d}",
            "heartbeat": str(round(self._beat * 1000)),
            "node": self.branch.node,
            "hops": str(self.branch.hops),
        }
        answer = self._script(
            keys=[name("head"), name("items"), name("log"), name("beat"), self._draft],
            args=[
                name("changed"),
                int(whole),
                self._found.revision,
                self._found.digest,
                round(self._beat * 1000) * SILENT_BEATS,
                _LOG_STEPS,
                logged,
                _KEEP_SECONDS,
                len(fields),
                *(part for field in fields.items() for part in field),
                *items,
            ],
        )
        return _Found.of(answer)


@dataclass(slots=True, eq=False)
class _Turn:
    """When an environment is to be written.

    Attributes:
        copy: The environment in Redis.
        backoff: Between attempts.
        copied_at: When Redis last held its state for certain, on the monotonic clock.
        due_at: When the next beat is, or the next attempt.
        check_at: When all that Redis holds is to be looked at, at a beat.
        failing: The last attempt has failed: nothing is written before the next one is due.
    """

    copy: Copy
    backoff: Backoff
    copied_at: float
    due_at: float
    check_at: float
    failing: bool = False


class Replicator:
    """Keeps what a relay serves in Redis too, on a thread of its own. Safe from any thread."""

    def __init__(self, relay: Relay, url: str, *, prefix: str = DEFAULT_PREFIX) -> None:
        """Name the Redis; nothing is opened before `start`.

        Args:
            relay: What to write. It goes on whatever becomes of Redis.
            url: Such as ``redis://localhost:6379/0``, ``rediss://…`` or ``unix://…``.
            prefix: What all names in Redis begin with.

        Raises:
            MissingDependencyError: redis is not installed.
            InvalidArgumentError: The URL is none of Redis.
        """
        try:
            import redis
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"{error.name} is not installed, which this needs: pip install 'rheostat[redis]'"
            ) from error
        self._redis: Any = made_from(redis.Redis, url)
        self._relay = relay
        self._prefix = prefix
        self._beat = relay.heartbeat / _BEATS
        self._turns: dict[Branch, _Turn] = {}
        self._changed = threading.Condition()
        self._rung = False
        self._closed = False
        self._stop_listening: list[Any] = []
        self._thread = threading.Thread(target=self._work, name="rheostat-replicator", daemon=True)

    def start(self) -> None:
        """Begin; does not wait for anything."""
        self._relay.copied_at = self._relay.monotonic()
        self._thread.start()

    def close(self) -> None:
        """End it; what Redis holds stays, and grows old. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)
        for stop in self._stop_listening:
            stop()
        self._redis.close()

    def _ring(self) -> None:
        with self._changed:
            self._rung = True
            self._changed.notify_all()

    def _work(self) -> None:
        while not self._closed:
            self._wait(self._write_due())

    def _write_due(self) -> float:
        """Write what has changed and whose beat is due; returns the seconds until something else is due."""
        relay = self._relay
        self._follow()
        turns = self._turns.values()
        for turn in turns:
            changed = turn.copy.written is not turn.copy.branch.head
            if relay.monotonic() >= turn.due_at or (changed and not turn.failing):
                self._take(turn)
        if not turns:
            # Until there is an environment, nothing rings.
            return _LOOK_SECONDS
        relay.copied_at = min(turn.copied_at for turn in turns)
        return min(turn.due_at for turn in turns) - relay.monotonic()

    def _take(self, turn: _Turn) -> None:
        relay, copy = self._relay, turn.copy
        started = relay.monotonic()
        due = started >= turn.due_at
        check = due and started >= turn.check_at
        try:
            held = copy.update(check=check)
        except Exception as error:  # noqa: BLE001 - a client of Redis raises much, and the relay goes on
            # Not its text, which may quote the address.
            level = logging.DEBUG if turn.failing else logging.WARNING
            address = f"{copy.layout.project}/{copy.layout.environment}"
            log.log(level, "%s cannot be written to Redis: %s; trying again", address, type(error).__name__)
            turn.failing = True
            turn.due_at = relay.monotonic() + turn.backoff.delay()
            return
        if turn.failing:
            log.info("%s/%s is written to Redis again", copy.layout.project, copy.layout.environment)
            turn.failing = False
        turn.backoff.reset()
        now = relay.monotonic()
        if held:
            turn.copied_at = now
        if due:
            turn.due_at = now + self._beat
        if check:
            turn.check_at = now + _CHECK_SECONDS

    def _follow(self) -> None:
        """Look for environments that have come up."""
        for branch in self._relay.branches:
            if branch not in self._turns and branch.head is not None:
                now = self._relay.monotonic()
                copy = Copy(branch, self._redis, prefix=self._prefix, beat=self._beat)
                self._turns[branch] = _Turn(copy, Backoff(*_BACKOFF, self._relay.jitter), now, now, now)
                self._stop_listening.append(branch.hub.listen(self._ring))

    def _wait(self, seconds: float) -> None:
        """Wait until something is due, or has changed."""
        deadline = self._relay.monotonic() + seconds
        with self._changed:
            while (left := deadline - self._relay.monotonic()) > 0 and not self._closed and not self._rung:
                self._changed.wait(left)
            self._rung = False


def _field(kind: str, key: str) -> str:
    return f"{kind}:{key}"
