"""Whole models around the layers: blocks, backbones, heads, generation and saving."""

from s5jax.models._arguments import BlockOptions as BlockOptions
from s5jax.models._backbone import SequenceBackbone as SequenceBackbone
from s5jax.models._base import SequenceModule as SequenceModule
from s5jax.models._block import ResidualBlock as ResidualBlock
from s5jax.models._classifier import DocumentMatcher as DocumentMatcher
from s5jax.models._classifier import SequenceClassifier as SequenceClassifier
from s5jax.models._generate import generate as generate
from s5jax.models._image_regressor import ImageRegressor as ImageRegressor
from s5jax.models._language import LanguageModel as LanguageModel
from s5jax.models._model import SequenceLabeler as SequenceLabeler
from s5jax.models._model import SequenceModel as SequenceModel
from s5jax.models._pipeline import Pipeline as Pipeline
from s5jax.models._pipeline import Preprocessing as Preprocessing
from s5jax.models._pretrained import find_pretrained as find_pretrained
from s5jax.models._pretrained import list_pretrained as list_pretrained
from s5jax.models._pretrained import load_pretrained as load_pretrained
from s5jax.models._references import references as references
from s5jax.models._saving import load as load
from s5jax.models._saving import save as save
