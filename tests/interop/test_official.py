"""Whole models from official checkpoints."""

import jax
import numpy as np
import official_models as official
import pytest
from flax import nnx, serialization
from helpers import run
from official_models import D_INPUT, D_OUTPUT, N_LAYERS, Draw, H, M
from torch_files import write_torch_file

from s5jax import (
    DocumentMatcher,
    LanguageModel,
    ResidualBlock,
    SequenceClassifier,
    SequenceLabeler,
    load,
    save,
)
from s5jax.interop import hope_block_from_official, load_official

L = 8
u = np.random.default_rng(1).normal(size=(L, D_INPUT)).astype("float32")
tokens = np.random.default_rng(2).integers(11, size=L)


def write(folder, arrays, **around):
    content = {"state_dict": arrays, **around} if around else arrays
    return write_torch_file(folder / "model.ckpt", content)


def s4_arrays(draw=None, layer=official.s4_layer, **options):
    draw = Draw() if draw is None else draw
    return official.torch_arrays(draw, [layer(draw) for _ in range(N_LAYERS)], **options)


def write_flax(folder, tree):
    path = folder / "model.msgpack"
    path.write_bytes(serialization.msgpack_serialize(tree))
    return path


def close(received, expected):
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_s4_classifier(tmp_path):
    arrays = s4_arrays()
    model = load_official("s4", write(tmp_path, arrays))
    assert isinstance(model, SequenceClassifier)
    close(run(model, u), official.torch_classifier(arrays, u, prenorm=True))


@pytest.mark.slow
def test_bidirectional_s4d_with_batch_norm_after_the_sum(tmp_path):
    draw = Draw()
    layers = [official.s4d_layer(draw, n_ssm=2, directions=2) for _ in range(N_LAYERS)]
    arrays = official.torch_arrays(draw, layers, norm="batch", final_norm=False)
    model = load_official("s4d", write(tmp_path, arrays))
    assert (model.backbone.options.prenorm, model.backbone.options.norm) == (False, "batch")
    assert model.layers[0].bidirectional
    close(run(model, u), official.torch_classifier(arrays, u, prenorm=False))


@pytest.mark.parametrize("bidirectional", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_s5_classifier(tmp_path, bidirectional):
    tree = official.s5_tree(Draw(), bidirectional=bidirectional)
    model = load_official("s5", write_flax(tmp_path, {**tree, "step": 3, "opt_state": {}}))
    assert model.mask_padding is not bidirectional
    close(run(model, u), official.s5_classifier(tree, u))


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["s4", "s4d", "dlr", "sgconv", "hope"])
def test_models_can_be_saved(tmp_path, layer):
    arrays = s4_arrays(layer=getattr(official, f"{layer}_layer"))
    model = load_official(layer, write(tmp_path, arrays))
    save(model, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert jax.tree.all(jax.tree.map(np.array_equal, nnx.state(again), nnx.state(model)))


@pytest.mark.slow
def test_language_model(tmp_path):
    draw = Draw()
    layers = [official.s4_layer(draw), official.s4_layer(draw), official.feed_forward(draw)]
    encoder, decoder = {"encoder.0.weight": draw(11, H)}, draw.dense("decoder.0", H, 11)
    arrays = official.torch_arrays(draw, layers, encoder=encoder, decoder=decoder)
    model = load_official("s4", write(tmp_path, arrays))
    assert isinstance(model, LanguageModel)
    assert (model.backbone.ffn_every, model.backbone.n_layers) == (2, 2)
    x = encoder["encoder.0.weight"][tokens] * H**0.5
    x = official.torch_features(arrays, x, prenorm=True)
    close(run(model, tokens), official.dense(arrays, "decoder.0", x))


@pytest.mark.slow
def test_adaptive_language_model(tmp_path):
    draw, sizes = Draw(), (5, 4, 2)
    encoder = {}
    for i, n in enumerate(sizes):
        encoder[f"encoder.0.emb_layers.{i}.weight"] = draw(n, H // 2**i)
        encoder[f"encoder.0.emb_projs.{i}"] = draw(H, H // 2**i)
        encoder[f"loss.out_layers_biases.{i}"] = draw(n)
    encoder |= {"loss.cluster_weight": draw(2, H), "loss.cluster_bias": draw(2)}
    encoder |= {"loss.out_projs.0": draw(H, H)}
    copies = {n.replace("loss.", "loss_val."): x for n, x in encoder.items() if "loss." in n}
    arrays = official.torch_arrays(draw, [official.s4_layer(draw)], encoder=encoder, decoder=copies)
    model = load_official("s4", write(tmp_path, arrays))
    assert (model.cutoffs, model.div_val) == ((5, 9), 2)

    starts = (0, 5, 9)
    which = np.searchsorted([5, 9], tokens, side="right")
    x = np.stack(
        [
            encoder[f"encoder.0.emb_projs.{i}"]
            @ encoder[f"encoder.0.emb_layers.{i}.weight"][t - starts[i]]
            for t, i in zip(tokens, which, strict=True)
        ]
    )
    x = official.torch_features(arrays, x * H**0.5, prenorm=True)

    def log_softmax(z):
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    def scores(i, projection):
        table = encoder[f"encoder.0.emb_layers.{i}.weight"]
        return x @ projection @ table.T + encoder[f"loss.out_layers_biases.{i}"]

    head = encoder["loss.out_projs.0"]
    joint = x @ head @ encoder["loss.cluster_weight"].T + encoder["loss.cluster_bias"]
    first = log_softmax(np.concatenate([scores(0, head), joint], -1))
    rest = [
        first[:, -i, None] + log_softmax(scores(i, encoder[f"encoder.0.emb_projs.{i}"]))
        for i in (1, 2)  # the last logit is that of the first cluster
    ]
    close(run(model, tokens), np.concatenate([first[:, :5], *rest], -1))


@pytest.mark.parametrize("layer", ["dlr", "dss", "sgconv", "hope"])
def test_other_layers(tmp_path, layer):
    make = getattr(official, f"{layer}_layer")
    norm = "scalar" if layer == "dlr" else "layer"
    arrays = s4_arrays(layer=make, norm=norm, final_norm=layer != "dlr")
    architecture = "dlr" if layer == "dss" else layer
    model = load_official(architecture, write(tmp_path, arrays), per_step=layer == "dlr")
    assert isinstance(model, SequenceLabeler if layer == "dlr" else SequenceClassifier)
    blocks = model.backbone.blocks
    assert len(blocks) == N_LAYERS
    assert blocks[0].options.norm == ("scalar_layer" if layer == "dlr" else "layer")
    gated = layer in ("sgconv", "hope")
    assert blocks[0].options.activation == ("glu" if gated else "gelu_linear")
    for i, block in enumerate(blocks):
        name = f"model.layers.{i}.layer.output_linear"
        name += ".0" if gated else ""
        assert isinstance(block, ResidualBlock)
        close(block.out2.kernel[...], np.squeeze(arrays[f"{name}.weight"]).T)
        close(block.out2.bias[...], np.squeeze(arrays[f"{name}.bias"]))


def test_parameters_of_other_layers(tmp_path):
    def first(layer, architecture, **options):
        arrays = s4_arrays(layer=layer)
        model = load_official(architecture, write(tmp_path, arrays), **options)
        return model.layers[0], {n.split("layers.0.layer.")[-1]: x for n, x in arrays.items()}

    dlr, arrays = first(official.dlr_layer, "dlr", layer_options={"kernel_to_real": "imag"})
    assert (dlr.version, dlr.bidirectional, dlr.kernel_to_real) == ("dlr", True, "imag")
    close(np.abs(dlr.raw_Lambda_re[...]), np.abs(arrays["kernel.Lambda_log_neg_re"]))
    dss, arrays = first(official.dss_layer, "dlr")
    assert dss.version == "dss_softmax"
    close(dss.raw_Lambda_re[...], arrays["kernel.Lambda"][:, 0])
    sgconv, arrays = first(official.sgconv_layer, "sgconv")
    assert (sgconv.decay, sgconv.l_max, sgconv.n_taps) == ("scale", 16, 16)
    close(sgconv.w[0, 2], arrays["kernel_list.2"][0])
    hope, arrays = first(official.hope_layer, "hope", layer_options={"decay_exp": -0.5})
    Han = np.repeat(official.pair(arrays["layer.kernel.Han"]), H, axis=1)
    inv_dt, D = arrays["layer.kernel.inv_dt"], arrays["layer.D"]
    expected = {"Han": Han, "inv_dt": inv_dt, "D": D}
    expected = hope_block_from_official(expected, decay_exp=-0.5, dt_transform="softplus")
    assert jax.tree.all(jax.tree.map(np.array_equal, nnx.state(hope), nnx.state(expected)))
    assert (hope.decay_exp, hope.dt_transform) == (-0.5, "softplus")


def test_version_3_and_minimal_layers(tmp_path):
    draw = Draw()
    arrays = s4_arrays(draw)
    expected = load_official("s4", write(tmp_path, arrays), layer_options={"dt_transform": "exp"})
    older = {}
    for name, x in arrays.items():
        name = name.replace("layer.layer", "layer").replace("layer.kernel", "layer.kernel.kernel")
        name = name.replace("A_real", "inv_w_real").replace("l_kernel", "L")
        if name.endswith("A_imag"):
            name, x = name.replace("A_imag", "w_imag"), -x
        if name.endswith("inv_dt"):
            name, x = name.replace("inv_dt", "log_dt"), x[:, 0]
        older[name] = x
    model = load_official("s4", write(tmp_path, older))
    assert jax.tree.all(jax.tree.map(np.array_equal, nnx.state(model), nnx.state(expected)))

    program = draw.dense("encoder", D_INPUT, H) | draw.dense("decoder", H, D_OUTPUT)
    kernel = {"C": draw(H, M, 2), "log_dt": draw(H), "log_A_real": draw(H, M)}
    kernel |= {"A_imag": draw(H, M)}
    program |= {f"s4_layers.0.kernel.{name}": x for name, x in kernel.items()} | {
        "s4_layers.0.D": draw(H),
        "s4_layers.0.output_linear.0.weight": draw(2 * H, H, 1),
        "s4_layers.0.output_linear.0.bias": draw(2 * H),
    }
    program |= draw.norm("norms.0")
    program = {f"module.{name}": x for name, x in program.items()}
    model = load_official("s4d", write_torch_file(tmp_path / "a.pth", {"model": program, "acc": 1}))
    layer = model.layers[0]
    assert (model.backbone.options.prenorm, model.backbone.final_norm) == (False, False)
    close(layer.Lambda_im[...], kernel["A_imag"])
    close(layer.raw_step[...], kernel["log_dt"])
    close(layer.B[...], np.ones((H, M, 2)) * [1, 0])
    assert load_official("s4d", tmp_path / "a.pth", prenorm=True).backbone.options.prenorm


def test_options_come_from_the_configuration_unless_they_are_given(tmp_path):
    layer = {"dt_transform": "exp", "disc": "bilinear", "real_transform": None}
    config = {"model": {"dropout": 0.2, "tie_dropout": True, "layer": [layer, {"expand": 4}]}}
    config |= {"decoder": {"_name_": "sequence", "mode": "last"}}
    path = write(tmp_path, s4_arrays(layer=official.s4d_layer), hyper_parameters=config)
    model = load_official("s4d", path, dropout=0.1)
    options, layer = model.backbone.options, model.layers[0]
    assert (options.dropout, options.tie_dropout, model.pooling) == (0.1, "all", "last")
    assert (layer.dt_transform, layer.discretization) == ("exp", "bilinear")
    model = load_official("s4d", path, pooling="mean", layer_options={"discretization": "zoh"})
    assert (model.pooling, model.layers[0].discretization) == ("mean", "zoh")
    path = write(tmp_path, s4_arrays(layer=official.s4d_layer), hyper_parameters={})
    assert load_official("s4d", path).layers[0].dt_transform == "softplus"


def test_heads_and_norms_that_arrays_show(tmp_path):
    draw = Draw()
    head = "decoder.0.retrieval.classifier"
    decoder = draw.dense(f"{head}.0", 4 * H, H) | draw.dense(f"{head}.2", H, 2)
    path = write(tmp_path, s4_arrays(encoder={"encoder.0.weight": draw(11, H)}, decoder=decoder))
    model = load_official("s4", path)
    assert isinstance(model, DocumentMatcher)
    close(model.compare.kernel[...], decoder[f"{head}.0.weight"].T)
    tree = official.s5_tree(draw, batch_norm=False, n_layers=1)
    layers = {"layer1": {"kernel": draw(4 * H, H), "bias": draw(H)}}
    tree["params"]["decoder"] = layers | {"layer2": {"kernel": draw(H, 2), "bias": draw(2)}}
    model = load_official("s5", write_flax(tmp_path, tree), encoder="one_hot")
    assert isinstance(model, DocumentMatcher)
    assert (model.encoder, model.backbone.options.norm_epsilon) == ("one_hot", 1e-6)


@pytest.mark.slow
def test_a_file_of_torch_gives_the_same_model(tmp_path):
    torch = pytest.importorskip("torch", reason="writes the file with torch itself")
    arrays = s4_arrays()
    tensors = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in arrays.items() if x.ndim}
    tensors |= {name: torch.tensor(x) for name, x in arrays.items() if not x.ndim}
    torch.save({"state_dict": tensors, "pytorch-lightning_version": "2.0"}, tmp_path / "a.ckpt")
    model = load_official("s4", tmp_path / "a.ckpt")
    expected = load_official("s4", write(tmp_path, arrays))
    assert jax.tree.all(jax.tree.map(np.array_equal, nnx.state(model), nnx.state(expected)))


def test_all_that_does_not_fit_is_in_one_error(tmp_path):
    arrays = s4_arrays()
    del arrays["model.layers.1.layer.output_linear.0.bias"], arrays["model.norm.norm.bias"]
    arrays["model.layers.0.layer.input_gate.weight"] = np.ones((H, H))
    arrays["model.layers.1.layer.layer.D"] = np.ones((2, H))
    arrays["model.layers.1.norm.norm.weight"] = np.ones(7)
    with pytest.raises(ValueError, match="do not fit the architecture") as error:
        load_official("s4", write(tmp_path, arrays))
    message = str(error.value)
    missing = "missing: model.layers.1.layer.output_linear.bias, model.norm.norm.bias;"
    assert missing in message
    assert "unexpected: model.layers.0.layer.input_gate.weight;" in message
    assert "model.layers.1.layer.layer.D expected (1, 4), got (2, 4)" in message
    assert "model.layers.1.norm.norm.weight expected (4,), got (7,)" in message
    tree = official.s5_tree(Draw())
    for i in range(N_LAYERS):
        del tree["params"]["encoder"][f"layers_{i}"]["norm"], tree["batch_stats"]["encoder"]
        tree["batch_stats"] |= {"encoder": {"x": np.ones(2)}}
    with pytest.raises(ValueError, match=r"missing: .*, and 2 more; unexpected: batch_stats/enc"):
        load_official("s5", write_flax(tmp_path, tree))


@pytest.mark.parametrize(
    ("architecture", "names", "message"),
    [
        ("s4", {"model.layers.0.layer.layer.kernel.Han"}, "looks like 'hope'. Pass 'hope'."),
        ("s4", {"a.kernel.kernel.C"}, "looks like 's4d'. Pass 's4d'."),
        ("s4d", {"a.kernel.kernel.C", "a.kernel.kernel.P"}, "looks like 's4'. Pass 's4'."),
        ("hope", {"a.kernel_list.0"}, "looks like 'sgconv'. Pass 'sgconv'."),
        ("s4", {"a.kernel.W"}, "looks like 'dlr'. Pass 'dlr'."),
        ("s4", {"seq.Lambda_re"}, "looks like 's5'. Pass 's5'."),
        ("s4", {"d_layers.0.kernel.P"}, "looks like 'sashimi'. Models of this kind cannot be"),
        ("s5", {"layers.0.self_attn.in_proj_weight"}, "looks like 'transformer'. Models of"),
        ("dlr", {"b", "a"}, "has arrays such as ['a', 'b']. Models of this kind"),
        ("s5", {"Lambda_re"}, "must be in a msgpack file of Flax"),
    ],
)
def test_other_architectures_are_named(tmp_path, architecture, names, message):
    path = write(tmp_path, {name: np.ones(1) for name in names})
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace("]", r"\]")):
        load_official(architecture, path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"decoder": {"mode": "first"}}, "`decoder.mode` must be one of 'pool', 'last'"),
        ({"model": {"resratio": 0.5}}, "must not be weighted; the file has a `resratio` of 0.5"),
        ({"model": {"layer": {"dt_transform": "relu"}}}, "`dt_transform` must be one of 'exp'"),
    ],
)
def test_configurations_that_the_library_lacks_are_refused(tmp_path, config, message):
    path = write(tmp_path, s4_arrays(), hyper_parameters=config)
    with pytest.raises(ValueError, match=message):
        load_official("s4", path)


def test_bad_arguments_and_files(tmp_path):
    with pytest.raises(ValueError, match=r"`architecture` must be one of.*'s4'\?"):
        load_official("s4x", tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a file; `path` must be a checkpoint"):
        load_official("s4", tmp_path / "missing.ckpt")
    path = write(tmp_path, s4_arrays())
    with pytest.raises(TypeError, match=r"there is no argument `poling`. Did you mean 'pooling'\?"):
        load_official("s4", path, poling="mean")
    (tmp_path / "bad").write_bytes(b"\xc1")
    with pytest.raises(ValueError, match="is not a file that Flax wrote in msgpack"):
        load_official("s5", tmp_path / "bad")
    with pytest.raises(ValueError, match="must hold `params`; got no arrays"):
        load_official("s5", write_flax(tmp_path, {}))
    draw = Draw()
    layers = [official.s4_layer(draw), official.feed_forward(draw), official.feed_forward(draw)]
    path = write(tmp_path, official.torch_arrays(draw, layers))
    with pytest.raises(ValueError, match=r"must follow every n-th of the 1 layers; got.*\[1, 2\]"):
        load_official("s4", path)
