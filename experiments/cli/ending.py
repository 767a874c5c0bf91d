"""The end of a command: one sentence and an exit code for every failure."""

import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import jax

from experiments.cli.flags import as_started
from experiments.errors import InterruptedRun, RunError, UsageError, shorten

BROKEN_PIPE = 128 + getattr(signal, "SIGPIPE", 13)
"""Exit code, as in shells, when the reader of the output has closed it."""


def run_command(command: Callable[[], None]) -> None:
    """Runs a command line, and reports a failure with one sentence and an exit code."""
    _open_standard_streams()
    try:
        try:
            command()
        except SystemExit:  # after a help text
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except UsageError as error:
        _leave(error, 2)
    except BrokenPipeError:
        _leave("", BROKEN_PIPE)
    except OSError as error:
        _leave(_describe(error), 1)
    except RunError as error:
        _leave(error, 1)
    except InterruptedRun as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the user may press Ctrl-C again
        _print_last(error)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _leave("Interrupted.", 130)
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            _leave(
                f"Out of memory: {shorten(error) or 'none is left'}. Use a smaller batch or "
                "model, or a machine with more memory.",
                1,
            )
        if missing := _missing_device():
            _leave(missing, 2)
        raise


def _missing_device() -> str:
    """Explains a missing device, after a failure: JAX's own error depends on the operation."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        return (
            f"JAX finds no device for JAX_PLATFORMS={jax.config.values['jax_platforms']} "
            f"({shorten(error) or 'there is none'}): leave JAX_PLATFORMS empty to use any device."
        )
    return ""


def _describe(error: OSError) -> str:
    """Describes an error without its number, which is for programs."""
    if error.strerror is None:
        return str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    files = f" {' and '.join(names)}" if names else ""
    return f"Could not read or write{files}: {error.strerror}."


def _open_standard_streams() -> None:
    r"""Makes printing safe, wherever the command was started.

    A closed stream is replaced by the null device, so that no file of the run gets its number.
    Characters that the output's encoding lacks are written as ``\xe4``.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _leave(message: object, code: int) -> NoReturn:
    """Ends a failed command.

    One of many processes exits without JAX's shutdown barrier, in which it would wait for all
    others. The others notice. Process 0 waits a second, so that the others can print their errors
    before they lose it.
    """
    _print_last(message)
    if jax.distributed.is_initialized():
        time.sleep(1 if jax.process_index() == 0 else 0)
        os._exit(code)
    raise SystemExit(code)


def _print_last(message: object) -> None:
    """Prints to the standard error, and leaves nothing for Python to flush at its end.

    Both streams may be broken, for instance after a terminal was closed.
    """
    for stream in (sys.stderr, sys.stdout):
        try:
            if stream is sys.stderr and str(message):
                print(as_started(str(message)), file=stream)
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
