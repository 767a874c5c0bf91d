"""Training, and uses of a trained model.

To start a run from a notebook::

    from experiments.recipes import get_recipe
    from experiments.training import fit

    results = fit(get_recipe("pathx", "s5", "smoke"), "runs/try")
"""

from experiments.training.evaluation import evaluate_run as evaluate_run
from experiments.training.export import export_run as export_run
from experiments.training.forecasting import ForecastStream as ForecastStream
from experiments.training.generation import Sampling as Sampling
from experiments.training.generation import generate as generate
from experiments.training.loop import fit as fit
from experiments.training.prediction import predict as predict
from experiments.training.streaming import SoundStream as SoundStream
