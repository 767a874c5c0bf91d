import io
import json
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from true_files import (
    cifar_batches,
    write_aan,
    write_cifar_archive,
    write_cifar_pickles,
    write_imdb,
    write_mnist,
)

from experiments.data import __main__ as data
from experiments.data import prepare
from experiments.data.sources import Files
from experiments.data.tfds import open_dataset, read_examples
from experiments.errors import RunError, UsageError
from experiments.tasks import TASKS


def images(task, data_dir):
    options = TASKS[task].options_type(n_train=180, n_validation=20, n_test=40)
    source = TASKS[task](options, Files(data_dir)).source("train", seed=0)
    return source.batch(np.arange(180), epoch=0)


def test_packed_and_unpacked_files_give_the_same(tmp_path, capsys):
    found = []
    for name, write in (("binary", write_cifar_archive), ("python", write_cifar_pickles)):
        source = tmp_path / name
        source.mkdir()
        write(source)
        prepare.prepare_dataset("scifar", tmp_path / f"{name}-data", source)
        found.append(images("scifar", tmp_path / f"{name}-data"))
    np.testing.assert_array_equal(found[0]["image"], found[1]["image"])
    np.testing.assert_array_equal(found[0]["label"], found[1]["label"])
    out = capsys.readouterr().out
    assert "CIFAR-10: different from the published files: data_batch_1" in out
    assert "train 200, test 40" in out


def test_mnist_files_may_be_unpacked(tmp_path):
    source = tmp_path / "files"
    source.mkdir()
    prepare.prepare_dataset("smnist", tmp_path, write_mnist(source, packed=False))
    assert images("psmnist", tmp_path)["image"].shape == (180, 28, 28)


def test_prepared_data_have_the_names_of_their_classes(tmp_path):
    source = tmp_path / "files"
    source.mkdir()
    prepare.prepare_dataset("text", tmp_path, write_imdb(source, n=3))
    builder = open_dataset("imdb_reviews", Files(tmp_path), task="text")
    assert builder.info.features["label"].names == ["neg", "pos"]
    texts = {x["text"].decode(): x["label"] for x in read_examples(builder, "train")}
    assert texts["a fine film 2<br />Ä"] == 1
    assert len(texts) == 6
    with pytest.raises(UsageError, match="no split 'unsupervised', only"):
        read_examples(builder, "unsupervised")


def test_what_is_there_is_left_alone(tmp_path, capsys):
    source = tmp_path / "files"
    source.mkdir()
    prepare.prepare_dataset("smnist", tmp_path, write_mnist(source, packed=True))
    prepare.prepare_dataset("psmnist", tmp_path, None)
    assert "already exists" in capsys.readouterr().out


def test_a_form_that_needs_tensorflow_is_refused(tmp_path):
    source = tmp_path / "files"
    source.mkdir()
    prepare.prepare_dataset("smnist", tmp_path, write_mnist(source, packed=True))
    (info,) = (tmp_path / "mnist").glob("*/dataset_info.json")
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(UsageError, match="Prepare it again in another --data-dir"):
        images("smnist", tmp_path)


@pytest.mark.parametrize(
    ("task", "write", "lost", "word"),
    [
        ("image", write_cifar_pickles, "data_batch_3", "data_batch_3"),
        ("smnist", lambda f: write_mnist(f, packed=False), "t10k-labels-idx1-ubyte", "t10k-labels"),
        ("text", lambda f: write_imdb(f, splits=("train",)), None, "test"),
        ("retrieval", write_aan, "new_aan_pairs.eval.tsv", "new_aan_pairs.eval.tsv"),
    ],
)
def test_lost_files_are_named(tmp_path, task, write, lost, word):
    source = tmp_path / "files"
    source.mkdir()
    write(source)
    if lost:
        (source / lost).unlink()
    with pytest.raises(UsageError, match=word):
        prepare.prepare_dataset(task, tmp_path, source)


def test_broken_files_are_refused(tmp_path):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"not an archive")
    with pytest.raises(UsageError, match=r"not a valid .*archive"):
        prepare.prepare_dataset("image", tmp_path / "a", archive)
    source = tmp_path / "files"
    source.mkdir()
    for name in cifar_batches():
        (source / name).write_bytes(pickle.dumps(print))
    with pytest.raises(UsageError, match="not a valid batch of CIFAR-10"):
        prepare.prepare_dataset("image", tmp_path / "b", source)


def test_no_network_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(
        prepare.PREPARE,
        "smnist",
        lambda data_dir, source: prepare.prepare_tfds(
            prepare.MNIST._replace(urls=("http://localhost:9/mnist.gz",)), data_dir, source
        ),
    )
    with pytest.raises(RunError, match=r"localhost:9.* cannot be reached .*--source=DIR"):
        prepare.prepare_dataset("smnist", tmp_path)
    options = TASKS["smnist"].options_type()
    with pytest.raises(RunError, match="cannot be reached"):
        TASKS["smnist"](options, Files(tmp_path, download=True)).source("train", seed=0)
    with pytest.raises(UsageError, match=r"download .*lra_release"):
        prepare.prepare_dataset("retrieval", tmp_path)


def test_impossible_requests(tmp_path):
    with pytest.raises(UsageError, match="'pathx': choose from image, scifar"):
        prepare.prepare_dataset("pathx", tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        prepare.prepare_dataset("text", tmp_path, tmp_path / "nowhere")


def test_command_line(tmp_path, monkeypatch, capsys):
    source = tmp_path / "files"
    source.mkdir()
    write_aan(source)
    arguments = ["--task=retrieval", f"--data-dir={tmp_path}", f"--source={source}"]
    monkeypatch.setattr(sys, "argv", ["data", "prepare", *arguments])
    data.main()
    assert "new_aan_pairs.train.tsv" in capsys.readouterr().out
    assert (tmp_path / "aan" / "new_aan_pairs.test.tsv").stat().st_size


def test_words_of_wikitext_come_out_of_their_zip(tmp_path):
    source = tmp_path / "wikitext-103-v1.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for part in ("train", "valid", "test"):
            archive.writestr(f"wikitext-103/wiki.{part}.tokens", f" {part} words \n")
    prepare.prepare_dataset("wikitext103", tmp_path, source)
    assert (tmp_path / "wikitext-103" / "wiki.valid.tokens").read_text() == " valid words \n"


def test_clips_come_out_of_their_archive(tmp_path, capsys):
    source = tmp_path / "speech_commands_v0.02.tar.gz"
    names = ("./yes/a_nohash_0.wav", "./_background_noise_/pink.wav", "./testing_list.txt")
    with tarfile.open(source, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    prepare.prepare_dataset("sc35", tmp_path, source)
    folder = tmp_path / "speech_commands_v0.02"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"yes/a_nohash_0.wav", "testing_list.txt"}
    assert "1 clips" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["sc35", "wikitext103"])
def test_what_has_no_automatic_download_says_what_to_fetch(tmp_path, task):
    with pytest.raises(UsageError, match=r"download .* yourself"):
        prepare.prepare_dataset(task, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="does not hold"):
        prepare.prepare_dataset(task, tmp_path, tmp_path / "empty")
