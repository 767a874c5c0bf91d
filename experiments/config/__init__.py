"""The configuration of a run, and the options of its model."""

from experiments.config.run import Config as Config
from experiments.config.run import OptimOptions as OptimOptions
from experiments.config.run import TrainOptions as TrainOptions
from experiments.config.run import differences as differences
from experiments.config.run import read_config as read_config
from experiments.config.run import read_fingerprint as read_fingerprint
from experiments.config.run import read_resolved_config as read_resolved_config
