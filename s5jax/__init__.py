"""State-space models for very long sequences, in JAX and Flax NNX."""

from s5jax import init as init
from s5jax import nn as nn
from s5jax import ops as ops
from s5jax.nn import DLR as DLR
from s5jax.nn import GRU as GRU
from s5jax.nn import HOPE as HOPE
from s5jax.nn import LRU as LRU
from s5jax.nn import S4 as S4
from s5jax.nn import S4D as S4D
from s5jax.nn import S5 as S5
from s5jax.nn import Attention as Attention
from s5jax.nn import DenseSSM as DenseSSM
from s5jax.nn import DocumentMatcher as DocumentMatcher
from s5jax.nn import ImageRegressor as ImageRegressor
from s5jax.nn import LanguageModel as LanguageModel
from s5jax.nn import ResidualBlock as ResidualBlock
from s5jax.nn import SequenceBackbone as SequenceBackbone
from s5jax.nn import SequenceClassifier as SequenceClassifier
from s5jax.nn import SequenceLabeler as SequenceLabeler
from s5jax.nn import SequenceLayer as SequenceLayer
from s5jax.nn import SGConv as SGConv
from s5jax.nn import generate as generate
from s5jax.nn import load as load
from s5jax.nn import param_labels as param_labels
from s5jax.nn import reduce_order as reduce_order
from s5jax.nn import save as save
