"""Flax NNX modules: layers, the residual block, whole models."""

from s5jax.nn._attention import Attention as Attention
from s5jax.nn._base import SequenceLayer as SequenceLayer
from s5jax.nn._block import ResidualBlock as ResidualBlock
from s5jax.nn._dense_ssm import DenseSSM as DenseSSM
from s5jax.nn._diagonal import DiagonalLayer as DiagonalLayer
from s5jax.nn._dlr import DLR as DLR
from s5jax.nn._generate import generate as generate
from s5jax.nn._gru import GRU as GRU
from s5jax.nn._hope import HOPE as HOPE
from s5jax.nn._image_regressor import ImageRegressor as ImageRegressor
from s5jax.nn._io import load as load
from s5jax.nn._io import save as save
from s5jax.nn._labels import param_labels as param_labels
from s5jax.nn._language import LanguageModel as LanguageModel
from s5jax.nn._lru import LRU as LRU
from s5jax.nn._matching import DocumentMatcher as DocumentMatcher
from s5jax.nn._model import SequenceBackbone as SequenceBackbone
from s5jax.nn._model import SequenceClassifier as SequenceClassifier
from s5jax.nn._pipeline import Pipeline as Pipeline
from s5jax.nn._pipeline import Preprocessing as Preprocessing
from s5jax.nn._reduce import reduce_order as reduce_order
from s5jax.nn._s4 import S4 as S4
from s5jax.nn._s4d import S4D as S4D
from s5jax.nn._s5 import S5 as S5
from s5jax.nn._sgconv import SGConv as SGConv
from s5jax.nn._stepwise import SequenceLabeler as SequenceLabeler
