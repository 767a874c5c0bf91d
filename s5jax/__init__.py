"""State-space models for very long sequences, in JAX and Flax NNX."""

from s5jax import _versions as _versions
from s5jax import init as init
from s5jax import layers as layers
from s5jax import models as models
from s5jax import ops as ops
from s5jax.layers import DLR as DLR
from s5jax.layers import GRU as GRU
from s5jax.layers import HOPE as HOPE
from s5jax.layers import LRU as LRU
from s5jax.layers import S4 as S4
from s5jax.layers import S4D as S4D
from s5jax.layers import S5 as S5
from s5jax.layers import Attention as Attention
from s5jax.layers import DenseSSM as DenseSSM
from s5jax.layers import Hyena as Hyena
from s5jax.layers import LinOSS as LinOSS
from s5jax.layers import SequenceLayer as SequenceLayer
from s5jax.layers import SGConv as SGConv
from s5jax.layers import param_labels as param_labels
from s5jax.layers import reduce_order as reduce_order
from s5jax.models import DocumentMatcher as DocumentMatcher
from s5jax.models import ImageRegressor as ImageRegressor
from s5jax.models import LanguageModel as LanguageModel
from s5jax.models import Pipeline as Pipeline
from s5jax.models import Preprocessing as Preprocessing
from s5jax.models import ResidualBlock as ResidualBlock
from s5jax.models import SequenceBackbone as SequenceBackbone
from s5jax.models import SequenceClassifier as SequenceClassifier
from s5jax.models import SequenceLabeler as SequenceLabeler
from s5jax.models import find_pretrained as find_pretrained
from s5jax.models import generate as generate
from s5jax.models import list_pretrained as list_pretrained
from s5jax.models import load as load
from s5jax.models import load_pretrained as load_pretrained
from s5jax.models import references as references
from s5jax.models import save as save

__version__ = "0.1.0"
