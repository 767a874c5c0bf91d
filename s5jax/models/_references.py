"""The papers of layers and models, for those who cite them."""

from typing import NamedTuple

from flax import nnx

from s5jax.layers import (
    DLR,
    GRU,
    HOPE,
    LRU,
    S4,
    S4D,
    S5,
    Attention,
    DenseSSM,
    Hyena,
    LinOSS,
    SGConv,
)
from s5jax.models._adaptive import AdaptiveEmbedding
from s5jax.models._image_regressor import ImageRegressor
from s5jax.models._pipeline import Pipeline


class _Paper(NamedTuple):
    """An entry; ``arxiv`` is empty for the one book."""

    authors: str
    title: str
    year: int
    arxiv: str = ""


_PAPERS = {
    "s4": _Paper(
        r"Gu, Albert and Goel, Karan and R{\'e}, Christopher",
        "Efficiently Modeling Long Sequences with Structured State Spaces",
        2022,
        "2111.00396",
    ),
    "s4d": _Paper(
        r"Gu, Albert and Gupta, Ankit and Goel, Karan and R{\'e}, Christopher",
        "On the Parameterization and Initialization of Diagonal State Space Models",
        2022,
        "2206.11893",
    ),
    "s5": _Paper(
        "Smith, Jimmy T. H. and Warrington, Andrew and Linderman, Scott W.",
        "Simplified State Space Layers for Sequence Modeling",
        2023,
        "2208.04933",
    ),
    "dss": _Paper(
        "Gupta, Ankit and Gu, Albert and Berant, Jonathan",
        "Diagonal State Spaces are as Effective as Structured State Spaces",
        2022,
        "2203.14343",
    ),
    "dlr": _Paper(
        "Gupta, Ankit and Mehta, Harsh and Berant, Jonathan",
        "Simplifying and Understanding State Space Models with Diagonal Linear RNNs",
        2022,
        "2212.00768",
    ),
    "sgconv": _Paper(
        "Li, Yuhong and Cai, Tianle and Zhang, Yi and Chen, Deming and Dey, Debadeepta",
        "What Makes Convolutional Models Great on Long Sequence Modeling?",
        2022,
        "2210.09298",
    ),
    "hope": _Paper(
        "Yu, Annan and Mahoney, Michael W. and Erichson, N. Benjamin",
        "HOPE for a Robust Parameterization of Long-memory State Space Models",
        2024,
        "2405.13975",
    ),
    "lru": _Paper(
        "Orvieto, Antonio and Smith, Samuel L. and Gu, Albert and Fernando, Anushan and "
        "Gulcehre, Caglar and Pascanu, Razvan and De, Soham",
        "Resurrecting Recurrent Neural Networks for Long Sequences",
        2023,
        "2303.06349",
    ),
    "attention": _Paper(
        "Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion "
        "and Gomez, Aidan N. and Kaiser, Lukasz and Polosukhin, Illia",
        "Attention Is All You Need",
        2017,
        "1706.03762",
    ),
    "roformer": _Paper(
        "Su, Jianlin and Lu, Yu and Pan, Shengfeng and Murtadha, Ahmed and Wen, Bo and "
        "Liu, Yunfeng",
        "RoFormer: Enhanced Transformer with Rotary Position Embedding",
        2021,
        "2104.09864",
    ),
    "gru": _Paper(
        "Cho, Kyunghyun and van Merrienboer, Bart and Gulcehre, Caglar and Bahdanau, Dzmitry and "
        "Bougares, Fethi and Schwenk, Holger and Bengio, Yoshua",
        "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine "
        "Translation",
        2014,
        "1406.1078",
    ),
    "adaptive_softmax": _Paper(
        "Baevski, Alexei and Auli, Michael",
        "Adaptive Input Representations for Neural Language Modeling",
        2019,
        "1809.10853",
    ),
    "h3": _Paper(
        "Fu, Daniel Y. and Dao, Tri and Saab, Khaled K. and Thomas, Armin W. and Rudra, Atri and "
        "Ré, Christopher",
        "Hungry Hungry Hippos: Towards Language Modeling with State Space Models",
        2023,
        "2212.14052",
    ),
    "hyena": _Paper(
        "Poli, Michael and Massaroli, Stefano and Nguyen, Eric and Fu, Daniel Y. and Dao, Tri and "
        "Baccus, Stephen and Bengio, Yoshua and Ermon, Stefano and Ré, Christopher",
        "Hyena Hierarchy: Towards Larger Convolutional Language Models",
        2023,
        "2302.10866",
    ),
    "linoss": _Paper(
        "Rusch, T. Konstantin and Rus, Daniela",
        "Oscillatory State-Space Models",
        2025,
        "2410.03943",
    ),
    "cru": _Paper(
        "Schirmer, Mona and Eltayeb, Mazin and Lessmann, Stefan and Rudolph, Maja",
        "Modeling Irregular Time Series with Continuous Recurrent Units",
        2022,
        "2111.11344",
    ),
    "model_reduction": _Paper(
        "Antoulas, Athanasios C.", "Approximation of Large-Scale Dynamical Systems", 2005
    ),
}

_PAPERS_OF: dict[type[nnx.Module], tuple[str, ...]] = {
    S4: ("s4",),
    S4D: ("s4d",),
    S5: ("s5",),
    DLR: ("dlr", "dss"),
    SGConv: ("sgconv",),
    HOPE: ("hope",),
    LRU: ("lru",),
    LinOSS: ("linoss",),
    Hyena: ("hyena", "h3", "s5"),
    Attention: ("attention", "roformer", "dlr"),
    GRU: ("gru",),
    DenseSSM: ("model_reduction",),
    AdaptiveEmbedding: ("adaptive_softmax",),
    ImageRegressor: ("s5", "cru"),
}


def references(model: nnx.Module | Pipeline) -> str:
    """Returns the BibTeX entries of the papers that a layer or a model implements.

    Args:
        model: a layer, a model, or a pipeline. Subclasses count as their base class; a layer of
            your own, derived from `SequenceLayer`, has no entry.

    Returns:
        The entries, each once, with an empty line between them; empty if there are none.

    Raises:
        ValueError: if ``model`` is not a module, for instance a class.

    Example:
        >>> from flax import nnx
        >>> import s5jax
        >>> layer = s5jax.S5(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> print(s5jax.references(layer))
        @misc{s5,
          author = {Smith, Jimmy T. H. and Warrington, Andrew and Linderman, Scott W.},
          title = {{Simplified State Space Layers for Sequence Modeling}},
          year = {2023},
          eprint = {2208.04933},
          archivePrefix = {arXiv},
        }
    """
    if isinstance(model, Pipeline):
        model = model.model
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"references: `model` must be a layer or a model; got {model!r}. Build it first."
        )
    keys = dict.fromkeys(
        key
        for _, module in nnx.iter_modules(model)
        for kind, keys in _PAPERS_OF.items()
        if isinstance(module, kind)
        for key in keys
    )
    return "\n\n".join(_format(key, _PAPERS[key]) for key in _PAPERS if key in keys)


def _format(key: str, paper: _Paper) -> str:
    fields = {
        "author": paper.authors,
        "title": f"{{{paper.title}}}",  # inner braces preserve capitals
        "year": str(paper.year),
    }
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archivePrefix": "arXiv"}
    else:
        fields["publisher"] = "SIAM"
    lines = [f"  {name} = {{{value}}},\n" for name, value in fields.items()]
    return f"@{'misc' if paper.arxiv else 'book'}{{{key},\n{''.join(lines)}}}"
