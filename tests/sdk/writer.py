"""Changes the settings ``left`` and ``right`` together, again and again: a program that tests start.

Its arguments are the server's URL, the environment, how many changes, and the seconds in which to make them.
"""

from __future__ import annotations

import sys
import threading
import time

from tests.sdk.editor import Editor, setting_value


def main() -> None:
    """Make the changes and print how long that took."""
    url, environment, changes, seconds = sys.argv[1:]
    editor = Editor(url, environment)
    pause = threading.Event()
    started = time.monotonic()
    for number in range(1, int(changes) + 1):
        editor.commit(setting_value("left", number), setting_value("right", number))
        pause.wait(max(0.0, started + number * float(seconds) / int(changes) - time.monotonic()))
    sys.stdout.write(f"took {time.monotonic() - started}\n")


if __name__ == "__main__":
    main()
