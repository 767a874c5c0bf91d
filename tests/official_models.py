"""Random arrays of official models under their official names, and what the models compute.

The references follow the published equations step by step, in float64.
"""

import numpy as np
from scipy.special import erf, expit

H, M, D_INPUT, D_OUTPUT, N_LAYERS = 4, 2, 3, 5, 2


class Draw:
    """Draws arrays that differ by name."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape, around=0.0):
        return around + 0.3 * self.rng.normal(size=shape)

    def dense(self, name, inputs, outputs):
        return {f"{name}.weight": self(outputs, inputs), f"{name}.bias": self(outputs)}

    def norm(self, name, kind="layer"):
        if kind == "scalar":
            return {f"{name}.s": self(1, around=1.0), f"{name}.m": self(1)}
        arrays = {f"{name}.weight": self(H, around=1.0), f"{name}.bias": self(H)}
        if kind == "batch":
            arrays[f"{name}.running_mean"] = self(H)
            arrays[f"{name}.running_var"] = np.abs(self(H, around=1.0))
            arrays[f"{name}.num_batches_tracked"] = np.array(7)
        return arrays


def s4_layer(draw, *, n_ssm=1, directions=1, low_rank=True):
    arrays = {
        "layer.kernel.C": draw(directions, H, M, 2),
        "layer.kernel.B": draw(1, n_ssm, M, 2),
        "layer.kernel.A_real": draw(n_ssm, M, around=-0.5),
        "layer.kernel.A_imag": draw(n_ssm, M, around=2.0),
        "layer.kernel.inv_dt": draw(H, 1, around=-1.0),
        "layer.D": draw(1, H),
    }
    if low_rank:
        arrays |= {"layer.kernel.P": draw(1, n_ssm, M, 2), "layer.kernel.l_kernel": np.array(16)}
    return arrays | draw.dense("output_linear.0", H, 2 * H)


def s4d_layer(draw, **options):
    return s4_layer(draw, low_rank=False, **options)


def dlr_layer(draw):
    arrays = {"D": draw(1, H), "kernel.W": draw(2, H, M, 2), "kernel.Lambda_im": draw(M)}
    arrays |= {"kernel.Lambda_log_neg_re": draw(M)}
    output_map = draw.dense("output_linear", H, H)
    return arrays | output_map | {"output_linear.bias": output_map["output_linear.bias"][:, None]}


def dss_layer(draw):
    arrays = {name: x for name, x in dlr_layer(draw).items() if "Lambda" not in name}
    return arrays | {"kernel.Lambda": draw(M, 2, around=-1.0), "kernel.log_dt": draw(H)}


def sgconv_layer(draw):
    arrays = {f"kernel_list.{i}": draw(1, H, 4) for i in range(3)}
    arrays |= {"kernel_norm": draw(1, H, 1, around=2.0), "multiplier": draw(1, H, 1, around=1.0)}
    arrays |= {"D": draw(1, H), "kernel_norm_initialized": np.array(True)}
    return arrays | draw.dense("output_linear.0", H, 2 * H)


def hope_layer(draw):
    arrays = {"layer.D": draw(2, H), "layer.kernel.inv_dt": draw(H, 1)}
    arrays |= {"layer.kernel.Han": draw(2, 1, M, 2)}
    output_map = draw.dense("output_linear.0", 2 * H, 2 * H)
    weight = output_map["output_linear.0.weight"][..., None]
    return arrays | output_map | {"output_linear.0.weight": weight}


def feed_forward(draw):
    return draw.dense("ff.0.0", H, 4 * H) | draw.dense("ff.2", 4 * H, H)


def torch_arrays(draw, layers, *, norm="layer", final_norm=True, encoder=None, decoder=None):
    """A state dict of blocks with these layers."""
    arrays = draw.dense("encoder.0", D_INPUT, H) if encoder is None else dict(encoder)
    for i, layer in enumerate(layers):
        arrays |= {f"model.layers.{i}.layer.{name}": x for name, x in layer.items()}
        arrays |= draw.norm(f"model.layers.{i}.norm.norm", norm)
    arrays |= draw.norm("model.norm.norm", norm) if final_norm else {}
    head = draw.dense("decoder.0.output_transform", H, D_OUTPUT)
    return arrays | (head if decoder is None else decoder)


def s5_tree(draw, *, n_layers=N_LAYERS, bidirectional=False, batch_norm=True):
    """Variables of S5, as Flax nests them."""

    def dense(inputs, outputs):
        return {"kernel": draw(inputs, outputs), "bias": draw(outputs)}

    def layer():
        seq = {"Lambda_re": draw(M, around=-1.0), "Lambda_im": draw(M), "D": draw(H)}
        seq |= {"B": draw(M, H, 2), "log_step": draw(M, 1, around=-1.0)}
        names = ["C1", "C2"] if bidirectional else ["C"]
        seq |= {name: draw(H, M, 2) for name in names}
        norm = {"scale": draw(H, around=1.0), "bias": draw(H)}
        return {"seq": seq, "norm": norm, "out2": dense(H, H)}

    layers = {f"layers_{i}": layer() for i in range(n_layers)}
    params = {"encoder": {"encoder": dense(D_INPUT, H), **layers}, "decoder": dense(H, D_OUTPUT)}
    if not batch_norm:
        return {"params": params}
    means = {"mean": draw(H), "var": np.abs(draw(H, around=1.0))}
    return {"params": params, "batch_stats": {"encoder": {n: {"norm": means} for n in layers}}}


def pair(x):
    return x[..., 0] + 1j * x[..., 1]


def conjugates(x):
    return np.concatenate([x, x.conj()], -1)


def s4_kernels(arrays, name, L):
    """Kernels ``(directions, H, L)`` of S4, of dense matrices; of S4D if there is no P."""
    get = {n: arrays[f"{name}.{n}"] for n in ("C", "B", "A_real", "A_imag", "inv_dt")}
    dt = np.log1p(np.exp(get["inv_dt"][:, 0]))
    A = -np.exp(get["A_real"]) - 1j * get["A_imag"]
    B, C, S, I = pair(get["B"])[0], pair(get["C"]), len(A), np.eye(2 * M)
    kernels = np.zeros((len(C), H, L))
    for h in range(H):
        a, b, c = conjugates(A[h % S]), conjugates(B[h % S]), conjugates(C[:, h])
        if f"{name}.P" in arrays:
            p = conjugates(pair(arrays[f"{name}.P"])[0, h % S])
            dense = np.diag(a) - np.outer(p, p.conj())
            left = I - dt[h] / 2 * dense
            A_bar = np.linalg.solve(left, I + dt[h] / 2 * dense)
            B_bar = dt[h] * np.linalg.solve(left, b)
            power = np.linalg.matrix_power(A_bar, int(arrays[f"{name}.l_kernel"]))
            c = np.linalg.solve((I - power).T, c.T).T
        else:
            A_bar, B_bar = np.diag(np.exp(dt[h] * a)), b * (np.exp(dt[h] * a) - 1) / a
        for t in range(L):
            kernels[:, h, t] = (c @ np.linalg.matrix_power(A_bar, t) @ B_bar).real
    return kernels


def convolve(u, kernels):
    """A convolution over the past and, with a second kernel, from the next step over the future."""
    L, y = len(u), np.zeros(u.shape)
    for t in range(L):
        for s in range(L):
            if s <= t:
                y[t] += kernels[0, :, t - s] * u[s]
            elif len(kernels) == 2:
                y[t] += kernels[1, :, s - t - 1] * u[s]
    return y


def dense(arrays, name, x):
    return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def torch_norm(arrays, name, x):
    if f"{name}.running_mean" in arrays:
        mean, var = arrays[f"{name}.running_mean"], arrays[f"{name}.running_var"]
    else:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scaled = (x - mean) / np.sqrt(var + 1e-5)
    return scaled * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]


def torch_features(arrays, x, *, prenorm):
    """The backbone of state-spaces/s4 on one sequence of encoded inputs, with S4 or S4D."""
    n = sum(name.endswith("norm.norm.weight") and ".layers." in name for name in arrays)
    for i in range(n):
        block = f"model.layers.{i}"
        u = torch_norm(arrays, f"{block}.norm.norm", x) if prenorm else x
        if f"{block}.layer.ff.2.weight" in arrays:
            y = gelu(dense(arrays, f"{block}.layer.ff.0.0", u))
            y = dense(arrays, f"{block}.layer.ff.2", y)
        else:
            kernels = s4_kernels(arrays, f"{block}.layer.layer.kernel", len(u))
            y = gelu(convolve(u, kernels) + arrays[f"{block}.layer.layer.D"][0] * u)
            a, b = np.split(dense(arrays, f"{block}.layer.output_linear.0", y), 2, -1)
            y = a * expit(b)
        x = x + y
        x = x if prenorm else torch_norm(arrays, f"{block}.norm.norm", x)
    return torch_norm(arrays, "model.norm.norm", x) if prenorm else x


def torch_classifier(arrays, u, *, prenorm):
    x = torch_features(arrays, dense(arrays, "encoder.0", u), prenorm=prenorm)
    return dense(arrays, "decoder.0.output_transform", x.mean(0))


def s5_classifier(tree, u):
    """S5 with prenorm, batch norm, half_glu1 and mean pooling, on one sequence; logits."""
    encoder = tree["params"]["encoder"]
    x = u @ encoder["encoder"]["kernel"] + encoder["encoder"]["bias"]
    for i in range(N_LAYERS):
        block, stats = (t["encoder"][f"layers_{i}"] for t in (tree["params"], tree["batch_stats"]))
        mean, var = stats["norm"]["mean"], stats["norm"]["var"]
        v = (x - mean) / np.sqrt(var + 1e-5) * block["norm"]["scale"] + block["norm"]["bias"]
        y = s5_layer(block["seq"], v)
        g = y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))) / 2
        x = x + g * expit(g @ block["out2"]["kernel"] + block["out2"]["bias"])
    head = tree["params"]["decoder"]
    return x.mean(0) @ head["kernel"] + head["bias"]


def s5_layer(seq, u):
    Lambda, dt = seq["Lambda_re"] + 1j * seq["Lambda_im"], np.exp(seq["log_step"][:, 0])
    A_bar = np.exp(dt * Lambda)
    B_bar = ((A_bar - 1) / Lambda)[:, None] * pair(seq["B"])
    y = seq["D"] * u
    names = ["C1", "C2"] if "C1" in seq else ["C"]
    for name, order in zip(names, (1, -1), strict=False):
        state, outputs = np.zeros(len(Lambda)), []
        for u_t in u[::order]:
            state = A_bar * state + B_bar @ u_t
            outputs.append(2 * (pair(seq[name]) @ state).real)
        y = y + np.stack(outputs)[::order]
    return y
