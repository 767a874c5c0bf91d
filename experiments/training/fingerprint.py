"""Fingerprints of a run's data, recorded in ``config.json`` and compared later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.config import read_fingerprint
from experiments.devices.distributed import log_primary
from experiments.errors import UsageError
from experiments.records import list_changes

OnChangedData = Literal["stop", "use"]


def check_data(
    workdir: Path, task: str, now: Mapping[str, Any], on_changed_data: OnChangedData = "stop"
) -> None:
    """Compares the data's fingerprint with the fingerprint of the run's start, if there is one.

    Changed data are refused, or used and reported.

    Raises:
        UsageError: if the data have changed; lists the changes.
    """
    recorded = read_fingerprint(workdir)
    if not recorded or recorded == now:
        return
    changes = list_changes(recorded, now)
    facts = [change for change in changes if not change.startswith("sha256")]
    found = (
        f"The data of {task} have changed since the run in {workdir} was started: "
        f"{', '.join(facts) or 'some values differ'}."
    )
    if on_changed_data == "stop":
        raise UsageError(
            f"{found} Restore them, choose another --workdir, or use the new data with "
            "--on-changed-data=use. New data are split again, so the test split may then contain "
            "examples that were trained on."
        )
    log_primary(
        f"{found} Using the new data; the test split may contain examples that were trained on."
    )
