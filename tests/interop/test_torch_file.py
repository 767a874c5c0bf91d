"""The reader of the files of ``torch.save``."""

import collections
import os
import zipfile

import numpy as np
import pytest
from torch_files import Global, Instance, View, write_torch_file

from s5jax.interop._torch_file import KNOWN, Inert, read_torch_file

WEIGHT = np.arange(6.0).reshape(2, 3)


def read(path):
    return read_torch_file("load_official", path)


def test_tensors_of_all_kinds_are_read(tmp_path):
    numbers = np.arange(12, dtype="float32")
    turn = np.array([1 + 2j, 3 - 1j], "complex64")
    state = collections.OrderedDict(
        weight=WEIGHT,
        count=np.array(7),
        mask=np.array([True, False]),
        transposed=View(numbers, 0, (4, 3), (1, 4)),
        part=View(numbers, 5, (3,), (2,)),
        conjugate=View(turn, 0, (2,), (1,), {"conj": True}),
        negative=View(numbers, 1, (2,), (1,), {"neg": True}),
        empty=np.zeros((0, 3)),
    )
    expected = {
        "weight": WEIGHT,
        "count": np.array(7),
        "mask": np.array([True, False]),
        "transposed": numbers.reshape(3, 4).T,
        "part": numbers[5:11:2],
        "conjugate": turn.conj(),
        "negative": -numbers[1:3],
        "empty": np.zeros((0, 3)),
    }
    for order in ("little", "big"):
        arrays, hyper_parameters = read(write_torch_file(tmp_path / "a.pt", state, order=order))
        assert hyper_parameters == {}
        assert list(arrays) == list(expected)
        for name, array in expected.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)


def test_state_dicts_are_found_in_checkpoints(tmp_path):
    for content in (
        {"state_dict": {"w": WEIGHT}, "epoch": 3, "optimizer_states": [{"w": WEIGHT}]},
        {"model": {"w": WEIGHT}, "acc": 90.0},
        {"w": WEIGHT},
        {"w": Instance(Global("torch.nn", "Nothing"), None), "state_dict": {"w": WEIGHT}},
    ):
        arrays, _ = read(write_torch_file(tmp_path / "a.ckpt", content))
        np.testing.assert_array_equal(arrays["w"], WEIGHT)


def test_hyper_parameters_are_plain_data(tmp_path):
    def config(content):
        return Instance(Global("omegaconf.dictconfig", "DictConfig"), {"_content": content})

    def node(value):
        return Instance(Global("omegaconf.nodes", "AnyNode"), {"_val": value, "_parent": None})

    hyper_parameters = {
        "plain": {"d": 3, "names": ["a", "b"]},
        "config": config({"rate": node(0.1), "copied": node("${..rate}")}),
        "other": Instance(Global("somewhere", "Thing"), {"x": 1}),
    }
    content = {"state_dict": {"w": WEIGHT}, "hyper_parameters": hyper_parameters}
    assert read(write_torch_file(tmp_path / "a.ckpt", content)).hyper_parameters == {
        "plain": {"d": 3, "names": ["a", "b"]},
        "config": {"rate": 0.1, "copied": None},
        "other": {},
    }


class Evil:
    """Executes a command when it is unpickled by pickle itself."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"w": e}, lambda e: {"state_dict": e}])
def test_nothing_in_a_file_is_executed(tmp_path, wrap):
    mark = tmp_path / "executed"
    path = write_torch_file(tmp_path / "evil.pt", wrap(Evil(f"touch {mark}")))
    with zipfile.ZipFile(path) as archive:
        assert b"system" in archive.read("evil/data.pkl")
    with pytest.raises(ValueError, match=r"without executing it: it.*got \w+\.system"):
        read(path)
    path = write_torch_file(path, {"state_dict": {"w": WEIGHT}, "x": Evil(f"touch {mark}")})
    np.testing.assert_array_equal(read(path).arrays["w"], WEIGHT)
    assert not mark.exists()


def test_stand_ins_cannot_be_changed(tmp_path):
    path = tmp_path / "a.pt"
    for name in (b"torch._utils\n_rebuild_tensor_v2", b"collections\nOrderedDict", b"os\nsystem"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", b"c" + name + b"\n(N(S'__doc__'\nS'changed'\ndtb.")
        with pytest.raises(ValueError, match="without executing it"):
            read(path)
    for stand_in in (*KNOWN.values(), Inert):
        assert stand_in.__doc__ != "changed"


def test_files_of_other_forms_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    with pytest.raises(ValueError, match=r"is not a zip file.*PyTorch 1\.6.*weights_only=True"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/other", b"")
    with pytest.raises(ValueError, match=r"must hold one data\.pkl in a folder; got 0"):
        read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"." * 1000)
    with pytest.raises(ValueError, match="this file is compressed"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}")
    with pytest.raises(ValueError, match=r"cannot|without executing it: .*torch\.save\(model"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([WEIGHT], "must hold a state dict; got list"),
        ({"state_dict": {}}, "must hold a state dict; got dict"),
        ({"w": 3}, "must hold tensors; got int as 'w'"),
        ({3: WEIGHT}, "must hold tensors; got Tensor as '3'"),
        ({"w": View(np.ones(4), 2, (3,), (1,))}, "'w' has more numbers than are stored"),
        ({"w": View(np.ones(4), 0, (2**40,), (0,))}, "'w' has more numbers than are stored"),
        ({"w": View(np.ones(4), -1, (2,), (1,))}, "'w' is not stored as torch.save stores"),
        ({"w": View(np.ones(4), 0, (2,), (1, 1))}, "'w' is not stored as torch.save stores"),
    ],
)
def test_content_that_is_no_state_dict_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(write_torch_file(tmp_path / "a.pt", content))


@pytest.mark.slow
def test_files_of_torch_are_read(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch itself")
    path = tmp_path / "a.pt"
    tensors = {
        **{"parameter": torch.nn.Parameter(torch.randn(2, 3)), "view": torch.randn(3, 4).T[1:]},
        **{"half": torch.randn(3).half(), "wide": torch.randn(3, dtype=torch.cfloat).conj()},
        **{"count": torch.tensor(3), "bfloat": torch.randn(3).bfloat16()},
    }
    torch.save({"state_dict": tensors, "device": torch.device("cpu"), "lr": torch.float32}, path)
    arrays, _ = read(path)
    for name, tensor in tensors.items():
        expected = tensor.detach().resolve_conj()
        wide = expected.float() if name == "bfloat" else expected
        assert arrays[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(arrays[name].astype(wide.numpy().dtype), wide.numpy())
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="is not a zip file"):
        read(path)
