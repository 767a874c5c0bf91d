"""``python -m experiments.stream``: a trained model listens to a sound as it arrives."""

import csv
import sys

import numpy as np
import soundfile

from experiments.cli.ending import run_command
from experiments.cli.finished import StreamFlags
from experiments.cli.flags import read_flags
from experiments.cli.process import set_up_process
from experiments.errors import UsageError, blaming_options, check_positive
from experiments.files import check_output
from experiments.training.prediction import describe_output
from experiments.training.streaming import SoundStream, describe_speed, listen, open_sound


def main() -> None:
    """Reads the command line, prints a row for each chunk, and then the speed."""
    set_up_process()
    flags = read_flags(StreamFlags, prog="python -m experiments.stream", use_underscores=True)
    check_output(flags.out, "--out")
    with blaming_options():
        check_positive(flags, chunk=flags.chunk)
    stream = SoundStream(flags.workdir)
    if flags.out is not None and not stream.returns_samples:
        raise UsageError(
            f"--out is for the samples that a model returns, and the one in {flags.workdir} "
            "returns none: leave it out, and the answers are printed."
        )
    writer, outputs, times, end = csv.writer(sys.stdout, lineterminator="\n"), [], [], 0.0
    with open_sound(stream, flags.file) as sound:
        for heard in listen(stream, sound, chunk=flags.chunk):
            last = heard.outputs[-1] if stream.has_steps else heard.outputs
            row = {"seconds": heard.end, **describe_output(last, stream.classes)}
            if not times:
                writer.writerow(row)
            writer.writerow(f"{v:.4f}" if isinstance(v, float) else v for v in row.values())
            sys.stdout.flush()
            times, end = [*times, heard.seconds], heard.end
            if flags.out is not None:
                outputs.append(heard.outputs)
        if flags.out is not None:
            samples = np.concatenate(outputs)
            soundfile.write(flags.out, samples, sound.samplerate, subtype="FLOAT", format="WAV")
    print(describe_speed(times, end), file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
