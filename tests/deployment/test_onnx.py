"""A classifier outside of PyTorch: it answers as PyTorch does whatever the shape, and its int8 is worth having."""

import copy
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from networks import small, words
from sklearn.linear_model import LogisticRegression
from test_formats import CUTS
from transformers import AutoConfig, AutoTokenizer, DataCollatorWithPadding

from conftest import FAMILIES, ROOT, environment
from encoder_reduction.data import corpora
from encoder_reduction.deployment import folder, libraries
from encoder_reduction.deployment.export import TOLERANCE, check, export, torch_logits
from encoder_reduction.deployment.quantisation import quantise
from encoder_reduction.deployment.session import Session
from encoder_reduction.errors import UserError
from encoder_reduction.reductions import reduce_model

CPU = torch.device("cpu")
# Examples and tokens: one text, one token, odd numbers, those that the exporter has looked at, and the longest.
SHAPES = [(1, 1), (1, 9), (3, 7), (2, 2), (7, 13), (16, 5), (1, 30), (5, 30)]


def batch(examples, tokens, vocabulary=50):
    """Words at random, of which every text but the first has padding at its end."""
    draw = torch.Generator().manual_seed(examples * tokens)
    ids = torch.randint(4, vocabulary, (examples, tokens), generator=draw)
    lengths = torch.randint(1, tokens + 1, (examples,), generator=draw)
    lengths[0] = tokens
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def reduced(family, dims):
    model = small(family, layers=2, heads=4, head_size=4, intermediate=32, spread=0.2)
    return reduce_model(model, {dim: CUTS[dim] for dim in dims}, [], seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [(), ("heads", "intermediate"), ("hidden", "layers")], ids="+".join)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_classifier_answers_as_pytorch_does_whatever_the_shape(family, dims, tmp_path):
    model, file = reduced(family, dims), tmp_path / "model.onnx"
    export(model, file)
    longest = 29 if family == "roberta" else 30  # whose positions begin after the padding's
    batches = [batch(examples, min(tokens, longest)) for examples, tokens in SHAPES]
    assert check(file, model, batches) <= TOLERANCE
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    axes = {each.name: [d.dim_param for d in each.type.tensor_type.shape.dim] for each in onnx.load(file).graph.input}
    assert axes == {"input_ids": ["batch", "tokens"], "attention_mask": ["batch", "tokens"]}


@pytest.mark.slow
def test_a_packaged_model_with_pruned_heads_answers_alike_up_to_its_longest_text(packaged, batches, tmp_path):
    model = reduce_model(packaged["roberta"][0], {"heads": CUTS["heads"]}, [], seed=0).eval()
    export(model, tmp_path / "model.onnx")
    (real, *_), vocabulary = batches["roberta"], model.config.vocab_size
    single = {name: each[:1] for name, each in real.items()}
    check(tmp_path / "model.onnx", model, [*batches["roberta"], single, batch(2, 512, vocabulary)])


def test_what_another_network_answers_is_refused_with_the_difference(tmp_path):
    model, other = small("bert", 1, 2, 4, 16, spread=0.2), small("bert", 1, 2, 4, 16, spread=0.5)
    export(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"differ from PyTorch's by up to \d.* more than rounding \(0\.0001\)"):
        check(tmp_path / "model.onnx", other, [batch(2, 5)])


def in_batches(data, tokenizer):
    """Real texts in batches of 16, and their labels."""
    texts, collate = data["text"][:], DataCollatorWithPadding(tokenizer)
    groups = [texts[start : start + 16] for start in range(0, len(texts), 16)]
    return [collate(tokenizer(group, truncation=True, max_length=128)) for group in groups], np.asarray(data["label"])


@torch.no_grad()
def fit_head(model, batches, labels):
    """A logistic regression for the last layer: a trained classifier in seconds."""
    pooled = np.concatenate([model.bert(**each).pooler_output.numpy() for each in batches])
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit(pooled, labels)
    weight, bias = torch.tensor(fitted.coef_[0]), float(fitted.intercept_[0])
    model.classifier.weight.copy_(torch.stack([-weight / 2, weight / 2]))
    model.classifier.bias.copy_(torch.tensor([-bias / 2, bias / 2]))


@pytest.mark.slow
def test_int8_loses_little_of_a_trained_model_and_most_of_its_size(packaged, movies, tmp_path):
    whole, tokenizer = packaged["bert"]
    model = copy.deepcopy(whole).eval()
    fit_head(model, *in_batches(corpora.draw(movies["train"], 400, 0), tokenizer))
    export(model, tmp_path / "model.onnx")
    quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    texts, labels = in_batches(corpora.draw(movies["test"], 400, 0), tokenizer)
    session = Session(tmp_path / "int8.onnx", CPU)
    ours = np.concatenate([session.logits(each) for each in texts]).argmax(-1)
    theirs = np.concatenate([torch_logits(model, each) for each in texts]).argmax(-1)
    assert np.mean(theirs == labels) > 0.6  # it has learnt something
    assert abs(np.mean(ours == labels) - np.mean(theirs == labels)) < 0.03
    assert np.mean(ours == theirs) > 0.9  # of a head that is unsure of many
    sizes = {name: (tmp_path / name).stat().st_size for name in ("model.onnx", "int8.onnx")}
    assert sizes["int8.onnx"] < 0.3 * sizes["model.onnx"]
    matrices = {each.op_type for each in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert "MatMulInteger" in matrices or "DynamicQuantizeMatMul" in matrices


@pytest.mark.parametrize("precision", folder.FORMATS)
def test_a_folder_has_what_others_read(precision, tmp_path):
    """The configuration is the family's own, which loads without code of ours: the graph has the pruned heads."""
    model, tokenizer = reduced("bert", ["heads"]), words(model_max_length=28)
    checked = folder.write(model, tokenizer, precision, tmp_path, [batch(3, 9), batch(1, 4)])
    assert (checked.texts, checked.difference <= TOLERANCE) == (4, precision == "fp32")
    assert checked.megabytes == pytest.approx((tmp_path / "model.onnx").stat().st_size / 1e6)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.model_type, config.architectures) == ("bert", ["BertForSequenceClassification"])
    assert config.id2label == model.config.id2label
    assert not hasattr(config, "auto_map")
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 28
    assert not list(tmp_path.glob("*.py"))


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_library_that_is_missing_is_one_sentence(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"^{name} is not installed.*pip install -e \.\[deploy\]"):
        libraries.check_installed()
    with pytest.raises(UserError, match=f"^{name} is not installed"):
        export(small("bert", 1, 2, 4, 16), tmp_path / "model.onnx")


@pytest.mark.slow
def test_whoever_only_trains_and_times_pytorch_imports_none_of_them():
    code = """
import sys
import encoder_reduction.runs.run, encoder_reduction.runs.paired, encoder_reduction.launching.export
assert not {"onnx", "onnxruntime", "onnxscript"} & set(sys.modules)
"""
    env = environment(PYTHONPATH=str(ROOT / "src"))
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
