"""Ctrl-C, SIGTERM and SIGHUP: recorded immediately, handled between two steps."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, SIGHUP)))


class Interrupts:
    """Records the first signal; a second one ends the program immediately. A context manager.

    A thread counts the signals, because Python handles none while XLA compiles. SIGHUP stays
    ignored under ``nohup``, and never counts as the second signal: both the terminal and the shell
    send it when a terminal is closed. Outside the main thread Python cannot handle signals, and the
    class records none. With many processes, each may get a signal, and all stop at the same call of
    `check`: JAX's runtime notices SIGTERM and agrees on the call. Other signals are forwarded to
    it as SIGTERM.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._calls = 0
        self._are_many = jax.process_count() > 1
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if not self._is_ignored(number)]
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
        """Treats a closed output like SIGPIPE, which Python ignores."""
        self._remember(getattr(signal, "SIGPIPE", signal.SIGTERM), None)

    def check(self) -> int | None:
        """Returns the signal to handle now, if any; all processes must call it equally often."""
        if not self._are_many:
            return self._received
        self._calls += 1
        if multihost_utils.reached_preemption_sync_point(self._calls):
            return self._received or signal.SIGTERM
        return None

    def _is_ignored(self, number: int) -> bool:
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
    """Reads the signals that the operating system has delivered, one byte each."""
    received = 0
    with open(reader, "rb", buffering=0) as signals:
        while number := signals.read(1):
            received += number[0] in handled and number[0] != SIGHUP
            if received == 2:
                os._exit(128 + number[0])
