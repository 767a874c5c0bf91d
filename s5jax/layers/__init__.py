"""Sequence layers: Flax NNX modules that share one contract, `SequenceLayer`."""

from s5jax.layers._attention import Attention as Attention
from s5jax.layers._base import SequenceLayer as SequenceLayer
from s5jax.layers._dense_ssm import DenseSSM as DenseSSM
from s5jax.layers._diagonal import DiagonalLayer as DiagonalLayer
from s5jax.layers._dlr import DLR as DLR
from s5jax.layers._edits import Edits as Edits
from s5jax.layers._gru import GRU as GRU
from s5jax.layers._hope import HOPE as HOPE
from s5jax.layers._hyena import Hyena as Hyena
from s5jax.layers._kernel import KernelLayer as KernelLayer
from s5jax.layers._labels import param_labels as param_labels
from s5jax.layers._linoss import LinOSS as LinOSS
from s5jax.layers._lru import LRU as LRU
from s5jax.layers._reduce import reduce_order as reduce_order
from s5jax.layers._s4 import S4 as S4
from s5jax.layers._s4d import S4D as S4D
from s5jax.layers._s5 import S5 as S5
from s5jax.layers._sgconv import SGConv as SGConv
