"""Ctrl-C and SIGTERM: noticed at once, answered between two steps."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While active, remembers the first signal; a second one ends the program at once.

    Outside the main thread, where Python cannot handle signals, it never sees one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # ty: ignore[invalid-argument-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = number
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
