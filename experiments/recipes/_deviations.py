"""Standard deviations over seeds, where papers give them with their figures.

S5's on Long Range Arena and speech are from the appendix of its paper, as others quote it. LRU's
belong to figures that minimal-LRU's defaults need not reach. Those on the sets of the UEA archive
divide by five, the number of seeds.

References:
    Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    Gu et al., "S4D", 2022, https://arxiv.org/abs/2206.11893 (with the second version of S4).
    Orvieto et al., "LRU", 2023, https://arxiv.org/abs/2303.06349.
    Rusch and Rus, "LinOSS", 2025, https://arxiv.org/abs/2410.03943 (the UEA archive).
"""

DEVIATIONS: dict[tuple[str, str], float] = {
    ("listops", "s5"): 0.0023,
    ("text", "s5"): 0.0015,
    ("retrieval", "s5"): 0.0005,
    ("image", "s5"): 0.0022,
    ("pathfinder", "s5"): 0.0026,
    ("pathx", "s5"): 0.0017,
    ("sc35", "s5"): 0.0016,
    ("pendulum", "s5"): 0.00027,
    ("listops", "s4"): 0.0007,
    ("text", "s4"): 0.0013,
    ("retrieval", "s4"): 0.0015,
    ("image", "s4"): 0.0023,
    ("pathfinder", "s4"): 0.0025,
    ("sc35", "s4"): 0.0015,
    ("scifar", "s4"): 0.0043,
    ("listops", "s4d"): 0.0034,
    ("text", "s4d"): 0.0043,
    ("retrieval", "s4d"): 0.0014,
    ("image", "s4d"): 0.0026,
    ("pathfinder", "s4d"): 0.0124,
    ("sc35", "s4d"): 0.0014,
    ("scifar", "s4d"): 0.0169,
    ("listops", "lru"): 0.008,
    ("text", "lru"): 0.001,
    ("retrieval", "lru"): 0.001,
    ("pathfinder", "lru"): 0.001,
    ("pathx", "lru"): 0.004,
    ("scifar", "lru"): 0.001,
    ("EigenWorms", "s5"): 0.037,
    ("SelfRegulationSCP1", "s5"): 0.046,
    ("SelfRegulationSCP2", "s5"): 0.026,
    ("EthanolConcentration", "s5"): 0.043,
    ("Heartbeat", "s5"): 0.055,
    ("MotorImagery", "s5"): 0.055,
    ("EigenWorms", "lru"): 0.028,
    ("SelfRegulationSCP1", "lru"): 0.034,
    ("SelfRegulationSCP2", "lru"): 0.036,
    ("EthanolConcentration", "lru"): 0.021,
    ("Heartbeat", "lru"): 0.067,
    ("MotorImagery", "lru"): 0.050,
    ("EigenWorms", "linoss"): 0.044,
    ("SelfRegulationSCP1", "linoss"): 0.026,
    ("SelfRegulationSCP2", "linoss"): 0.081,
    ("EthanolConcentration", "linoss"): 0.006,
    ("Heartbeat", "linoss"): 0.037,
    ("MotorImagery", "linoss"): 0.075,
}
"""By task, or data set of an archive, and model, for the preset ``paper``."""
