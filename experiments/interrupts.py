"""Ctrl-C and SIGTERM: noticed at once, answered between two steps."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While active, remembers the first signal; a second one ends the program at once.

    Outside the main thread, where Python cannot handle signals, it never sees one. Of many
    processes each may get a signal, and all answer at the same call: JAX's runtime notices
    SIGTERM and agrees on the call; Ctrl-C is handed on to it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._calls = 0
        self._are_many = jax.process_count() > 1
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            handled = (signal.SIGINT,) if self._are_many else SIGNALS
            self._before = {number: signal.signal(number, self._remember) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # ty: ignore[invalid-argument-type]

    def heed(self) -> int | None:
        """The signal to answer now, if any; every process must call this equally often."""
        if not self._are_many:
            return self._received
        self._calls += 1
        if multihost_utils.reached_preemption_sync_point(self._calls):
            return self._received or signal.SIGTERM
        return None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = number
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)
        if self._are_many:
            signal.raise_signal(signal.SIGTERM)
