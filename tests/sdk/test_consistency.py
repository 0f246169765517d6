"""Readers beside a stream of changes: nobody ever sees half a revision, waits, or is raised at."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from itertools import pairwise

from rheostat import Setting, ambient
from tests.e2e.process import Program, ServerProgram, wait_until
from tests.sdk.driving import Driven
from tests.sdk.editor import Editor, put

READERS = 4
CHANGES = 300
SECONDS = 3.0
"""100 changes a second."""


class Reader:
    """Reads two settings that always change together, in every way there is."""

    def __init__(self, client: Driven, declared: Setting[int]) -> None:
        self.reads = 0
        self.torn: list[object] = []
        self.errors: list[Exception] = []
        self.revisions: set[int] = set()
        self.ended = threading.Event()
        self._client = client.client
        self._declared = declared
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            last = 0
            while not self.ended.is_set():
                last = self._read(last)
        except Exception as error:  # noqa: BLE001 - none may be raised
            self.errors.append(error)

    def _read(self, last: int) -> int:
        client = self._client
        everything = client.evaluate_all({"region": "eu"})
        left, right = everything["left"], everything["right"]
        if left.value != right.value or left.revision != right.revision:
            self.torn.append((left, right))
        pinned = client.pin()
        if pinned["left"] != pinned["right"] or pinned.get("left", region="eu") != pinned.get("right"):
            self.torn.append((pinned["left"], pinned["right"]))
        with client.pinned(region="eu"):
            if client["left"] != client.get("right") or self._declared.get() != client["right"]:
                self.torn.append((client["left"], client["right"]))
        # One read is of one revision: the rule and the setting that it compares with change together.
        if client.get("agreed", region="eu") is not True or client["agreed"] is not True:
            self.torn.append("agreed")
        found = client.evaluate("left")
        if found.revision < last or found.value < 0:
            self.torn.append((last, found))
        self.revisions.add(found.revision)
        self.reads += 1
        return found.revision


def test_every_read_belongs_to_one_revision_while_a_hundred_changes_a_second_arrive(
    servers: Callable[[str], ServerProgram],
    make: Callable[..., Driven],
    record_property: Callable[[str, object], None],
):
    editor = Editor(servers("serve").url)
    editor.commit(put("left", 0), put("right", 0), put("agreed", False))
    editor.rule("agreed", "same", 'setting("left") == setting("right")', True)
    declared = Setting("left", int, default=-1)
    client = make(editor.url, environment=editor.environment, settings=[declared]).start()
    told: list[tuple[str, int, int, int]] = []
    client.subscribe(lambda change: told.append((change.name, change.before, change.after, change.revision)))
    with ambient(region="us"):
        # So that readers look at what is ambient from here on.
        assert client["left"] == 0
    readers = [Reader(client, declared) for _ in range(READERS)]
    try:
        # In a process of its own, which the readers do not hold up.
        command = [sys.executable, "-m", "tests.sdk.writer", editor.url, editor.environment, str(CHANGES)]
        with Program([*command, str(SECONDS)]) as writer:
            took = float(writer.line_like(r"took (\S+)", 60.0)[1])
        client.until_value("left", CHANGES)
    finally:
        for reader in readers:
            reader.ended.set()
        for reader in readers:
            reader.thread.join(20)
    assert not [error for reader in readers for error in reader.errors]
    assert not [torn for reader in readers for torn in reader.torn]
    assert all(reader.reads for reader in readers)
    assert any(len(reader.revisions) > 10 for reader in readers)
    # Each of the two was told of in order, and without a gap.
    for name in ("left", "right"):
        wait_until(lambda name=name: any(each[0] == name and each[2] == CHANGES for each in told))
        steps = [each for each in told if each[0] == name]
        assert steps[0][1] == 0
        assert all(after[1] == before[2] for before, after in pairwise(steps))
        assert len({step[3] for step in steps}) == len(steps)
    record_property("changes_per_second", round(CHANGES / took))
    record_property("rounds_of_reads", sum(reader.reads for reader in readers))
    record_property("revisions_seen", len(set().union(*(reader.revisions for reader in readers))))
