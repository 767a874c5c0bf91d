"""Initialisers: HiPPO matrices and their diagonal forms, random matrices and step sizes."""

from s5jax.init._dlr import DSSInit as DSSInit
from s5jax.init._dlr import dlr_eigenvalues as dlr_eigenvalues
from s5jax.init._dlr import dss_eigenvalues as dss_eigenvalues
from s5jax.init._dplr import block_diagonal_hippo as block_diagonal_hippo
from s5jax.init._dplr import dplr_hippo as dplr_hippo
from s5jax.init._dplr import nplr as nplr
from s5jax.init._hippo import hippo as hippo
from s5jax.init._hippo import hippo_rank_correction as hippo_rank_correction
from s5jax.init._lru import lru_ring as lru_ring
from s5jax.init._s4d import s4d as s4d
from s5jax.init._s4d import s4d_dfout as s4d_dfout
from s5jax.init._s4d import s4d_random as s4d_random
from s5jax.init._s5 import CInit as CInit
from s5jax.init._s5 import block_diagonal_random as block_diagonal_random
from s5jax.init._s5 import s5_input_matrix as s5_input_matrix
from s5jax.init._s5 import s5_output_matrix as s5_output_matrix
from s5jax.init._time_scale import log_uniform_step as log_uniform_step
