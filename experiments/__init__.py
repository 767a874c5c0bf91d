"""Training, evaluation and recipes on top of :mod:`s5jax`.

The files here are commands: ``python -m experiments.train`` and so on. They call these packages,
each of which imports only itself and the packages below it:

========  ==========================================================================
cli       flags, settings of the process, exit codes
bench     measurements of speed and memory
training  runs: the loop and its steps, checkpoints, records; uses of trained models
recipes   a configuration for each task, model and preset
config    the configuration of a run, and the options of its model
tasks     learning problems: a file or a folder for each family
data      data sets: downloading, preparing and reading them
devices   meshes of devices, and multiple processes
========  ==========================================================================

Below them are the files ``records`` (the JSON files of a run), ``files`` and ``errors``.
"""
