"""What tells the data of a run from other data: recorded in ``config.json``, compared later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.config import read_fingerprint
from experiments.distributed import say
from experiments.errors import UsageError
from experiments.results import list_changes

OnChangedData = Literal["stop", "use"]


def check_data(
    workdir: Path, task: str, now: Mapping[str, Any], on_changed_data: OnChangedData = "stop"
) -> None:
    """Compares the data of a run with the data that it was started on.

    Args:
        workdir: the run's folder; one without a fingerprint passes.
        task: name of the run's task.
        now: the fingerprint of the data as they are now.
        on_changed_data: whether changed data are refused, or used and reported.

    Raises:
        UsageError: if the data have changed; names what has.
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
            f"{found} Restore them, choose another --workdir, or use the new ones with "
            "--on-changed-data=use; their splits are drawn anew, so examples that were trained on "
            "may then be tested."
        )
    say(f"{found} The new data are used; examples that were trained on may now be tested.")
