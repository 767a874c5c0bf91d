"""The page in which a model reads drawn digits, in a browser without a window."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import normal, tiers

import s5jax
from experiments import export
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.tasks import get_task
from experiments.training import demo, fit
from experiments.training.demo import demo_page
from experiments.training.finished import load_trained

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs/_static/demo.html"
"""The page in the documentation, of a trained model."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason=f"needs one of {', '.join(BROWSERS)}")


def evaluate(page, statements, folder):
    """Runs JavaScript in the page, after the page's own, and returns what it returns."""
    script = (
        "<script>{ const found = document.createElement('pre'); found.id = 'found';"
        f"found.textContent = JSON.stringify((() => {{ {statements} }})());"
        "document.documentElement.append(found); }</script></html>"
    )
    file = folder / "page.html"
    file.write_text(page.replace("</html>", script))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--force-prefers-reduced-motion"]
    done = subprocess.run(
        [BROWSER, *options, f"--user-data-dir={folder / 'browser'}", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))


def read_images(page, images, folder):
    """Logits after each pixel of each image."""
    return np.array(
        evaluate(
            page,
            f"return {json.dumps(images.tolist())}.map((image) => {{ const reader = newReader();"
            "return image.map((pixel) => Array.from(readPixel(reader, pixel))); })",
            folder,
        )
    )


def classifier(layer=s5jax.S5, layer_options=(), **options):
    """A causal model whose norms are not those of a new one."""
    model = s5jax.SequenceClassifier(
        layer,
        d_input=1,
        d_output=10,
        d_model=6,
        n_layers=2,
        layer_options={"d_state": 4, **dict(layer_options)},
        rngs=nnx.Rngs(0),
        **options,
    )
    for block in model.backbone.blocks:
        for i, name in enumerate(vars(block.norm)):
            if name in ("scale", "bias", "mean", "var"):
                x = getattr(block.norm, name)
                x[...] = 0.5 + normal(i, *x.shape) ** 2
    model.eval()
    return model


MODELS = {
    "default": {},
    "unpaired": {"layer_options": {"conj_sym": False}, "activation": "gelu", "pooling": "last"},
    "full_glu": {"layer": s5jax.LRU, "activation": "full_glu", "norm": "layer"},
    "postnorm": {"activation": "half_glu2", "norm": "layer", "prenorm": False},
}


@in_browser
@pytest.mark.parametrize("name", tiers(list(MODELS), {"default"}))
def test_the_page_computes_what_the_model_does(name, tmp_path):
    model, images = classifier(**MODELS[name]), np.abs(normal(0, 3, 20))
    found = read_images(demo_page("digits", model, {"accuracy": 0.5}), images, tmp_path)

    def advance(state, pixels):
        logits, state = model.step(pixels[:, None], state)
        return state, logits

    _, expected = jax.jit(lambda u: jax.lax.scan(advance, model.init_state((3,)), u))(images.T)
    np.testing.assert_allclose(found, expected.swapaxes(0, 1), rtol=1e-4, atol=1e-4)


def test_the_page_needs_nothing_else():
    page = demo_page("smnist", classifier(), {"accuracy": 0.5})
    assert set(re.findall(r"\w+://[^\"]+", page)) == {"http://www.w3.org/2000/svg"}  # a name
    assert re.findall(r"(?:src|href)=\"[^\"]*", page) == ['href="data:,']
    assert "@MODEL@" not in page


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("image", {}, "the task digits or smnist; this run has image. Train .*digits"),
        ("digits", {"layer": s5jax.S4D}, "layers of S5 or LRU; this run has S4D"),
        ("digits", {"layer_options": {"bidirectional": True}}, "a causal model; .*bidirectional"),
        ("digits", {"norm": "scalar_layer"}, "the norm batch or layer; .* has scalar_layer"),
        ("digits", {"activation": "glu"}, "activation gelu, half_glu1, .*; this run has glu"),
        ("digits", {"final_norm": True}, "neither a final norm nor feed-forward blocks"),
        ("digits", {"ffn_every": 1}, "neither a final norm nor feed-forward blocks"),
    ],
)
def test_what_the_page_cannot_read(task, options, words):
    with pytest.raises(UsageError, match=f"--format=html needs .*{words}"):
        demo_page(task, classifier(**options), {"accuracy": 0.5})


def test_the_published_page_is_the_current_one():
    before, after = Path(demo.__file__).with_name("demo.html").read_text().split("@MODEL@")
    page = PUBLISHED.read_text()
    assert page.startswith(before)
    assert page.endswith(after)
    assert len(page) < 200_000


@in_browser
def test_a_drawing_is_read(tmp_path):
    """Draws a seven, moves back to the first pixels, clears, and reads the page's own examples."""
    found = evaluate(
        PUBLISHED.read_text(),
        """
        drawing.setPointerCapture = () => {};
        drawing.hasPointerCapture = () => true;
        const { left, top, width } = drawing.getBoundingClientRect();
        const send = (kind, x, y) => drawing.dispatchEvent(new PointerEvent(kind, {
          isPrimary: true, clientX: left + x * width, clientY: top + y * width,
        }));
        const seen = [];
        const look = () => seen.push([byId("guess").textContent, byId("count").textContent]);
        send("pointerdown", 0.3, 0.2);
        send("pointermove", 0.7, 0.2);
        send("pointermove", 0.5, 0.8);
        send("lostpointercapture", 0.5, 0.8);
        look();
        slider.value = 30;
        slider.dispatchEvent(new Event("input"));
        look();
        byId("clear").click();
        look();
        for (let i = 0; i < 10; i++) {
          byId("example").click();
          look();
        }
        return seen;
        """,
        tmp_path,
    )
    assert found[0] == ["The model reads 7", "784 of 784 pixels"]
    assert found[1][0].startswith("So far it looks like")
    assert found[1][1] == "30 of 784 pixels"
    assert found[2] == ["Waiting for a digit", "0 of 784 pixels"]
    examples = [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert [guess for guess, _ in found[3:]] == [f"The model reads {digit}" for digit in examples]


@in_browser
@pytest.mark.slow
def test_the_command_writes_a_page_of_a_run(command, tmp_path):
    workdir = tmp_path / "run"
    config = get_recipe("digits", "s5", "smoke")
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, bidirectional=False)
    )
    results = fit(config, workdir)
    code, out, _ = command(export, f"--workdir={workdir}", "--format=html")
    assert code == 0
    page = workdir / "export-html" / "demo.html"
    assert f"\n{page}: " in out
    source = get_task("digits")(config.data).source("test", seed=0)
    batch = source.batch(np.arange(len(source)), epoch=0)
    images = batch["image"].reshape(-1, 64) / 16
    logits = read_images(page.read_text(), images, tmp_path)[:, -1]
    expected = load_trained(workdir).model(images[..., None].astype(np.float32))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert (logits.argmax(-1) == batch["label"]).mean() == results["test"]["accuracy"]
