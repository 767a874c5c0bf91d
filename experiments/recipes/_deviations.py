"""Standard deviations over seeds, where papers give them with their figures.

S5's on Long Range Arena and speech are from the appendix of its paper, as others quote it. LRU's
belong to figures that minimal-LRU's defaults need not reach.

References:
    Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    Gu et al., "S4D", 2022, https://arxiv.org/abs/2206.11893 (with the second version of S4).
    Orvieto et al., "LRU", 2023, https://arxiv.org/abs/2303.06349.
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
}
"""By task and model, for the preset ``paper``."""
