"""Command lines: flags, settings of the process, and exit codes."""
