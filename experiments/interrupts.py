"""Ctrl-C, SIGTERM and SIGHUP: noticed immediately, answered between two steps."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, SIGHUP)))


class Interrupts:
    """While active, remembers the first signal; a second one ends the program immediately.

    That holds while XLA compiles, too, when Python handles no signal: a thread counts them. SIGHUP
    stays ignored under ``nohup``, and is never the second one: terminal and shell both send it when
    a terminal is closed. Outside the main thread, where
    Python cannot handle signals, none is seen. Of many processes each may get a signal, and all
    answer at the same call: JAX's runtime notices SIGTERM and agrees on the call; other signals
    are passed to it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._calls = 0
        self._are_many = jax.process_count() > 1
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if not self._is_left_alone(number)]
            self._before = {number: signal.signal(number, self._remember) for number in handled}
            reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            threading.Thread(target=_end_at_second, args=(reader, handled), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._writer)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # ty: ignore[invalid-argument-type]

    def note_broken_pipe(self) -> None:
        """Takes the end of the program that reads the output for a signal, as it is by default."""
        self._remember(getattr(signal, "SIGPIPE", signal.SIGTERM), None)

    def heed(self) -> int | None:
        """The signal to answer now, if any; every process must call this equally often."""
        if not self._are_many:
            return self._received
        self._calls += 1
        if multihost_utils.reached_preemption_sync_point(self._calls):
            return self._received or signal.SIGTERM
        return None

    def _is_left_alone(self, number: int) -> bool:
        if number == signal.SIGTERM:
            return self._are_many
        return number != signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = number
        for other in self._before:
            signal.signal(other, signal.SIG_IGN if other == SIGHUP else signal.SIG_DFL)
        if self._are_many:
            signal.raise_signal(signal.SIGTERM)


def _end_at_second(reader: int, handled: list[int]) -> None:
    """Reads the signals that the operating system has delivered, each a byte."""
    received = 0
    with open(reader, "rb", buffering=0) as signals:
        while number := signals.read(1):
            received += number[0] in handled and number[0] != SIGHUP
            if received == 2:
                os._exit(128 + number[0])
