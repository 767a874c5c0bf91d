"""``python -m experiments.generate``: samples from the model of a finished run."""

from experiments.cli.ending import run_command
from experiments.cli.finished import GenerateFlags
from experiments.cli.flags import read_flags
from experiments.cli.process import set_up_process
from experiments.training.generation import generate


def main() -> None:
    """Reads the command line, samples, and prints the texts and the speed."""
    set_up_process()
    flags = read_flags(GenerateFlags, prog="python -m experiments.generate", use_underscores=True)
    samples = generate(flags.workdir, flags.prompt, flags, files=flags.files())
    print("\n\n".join(samples.texts))
    print(
        f"\n{samples.tokens:,} new tokens in {samples.run_s:.3g} s: "
        f"{samples.tokens / samples.run_s:,.0f} tokens/s, prompts included. "
        f"Compilation took {samples.compile_s:.3g} s."
    )


if __name__ == "__main__":
    run_command(main)
