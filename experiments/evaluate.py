"""``python -m experiments.evaluate``: evaluates the model of a finished run."""

from experiments.cli.ending import run_command
from experiments.cli.finished import EvaluateFlags
from experiments.cli.flags import read_flags
from experiments.cli.process import set_up_process
from experiments.files import check_output
from experiments.records import describe_results, read_results, write_json
from experiments.training.evaluation import evaluate_run


def main() -> None:
    """Reads the command line, evaluates, and compares the figures with the recorded ones."""
    set_up_process()
    flags = read_flags(EvaluateFlags, prog="python -m experiments.evaluate", use_underscores=True)
    check_output(flags.json, "--json")
    results = evaluate_run(
        flags.workdir,
        flags.mesh,
        flags.files(),
        flags.dt,
        file=flags.file,
        on_changed_data=flags.on_changed_data,
    )
    print(describe_results(results))
    if flags.dt is not None:
        print(f"Evaluated on one step in {flags.dt}, with steps {flags.dt} times as long.")
    elif results == read_results(flags.workdir):
        print("These are the figures in results.json.")
    else:
        print("results.json has other figures.")
    if flags.json is not None:
        write_json(flags.json, results)


if __name__ == "__main__":
    run_command(main)
