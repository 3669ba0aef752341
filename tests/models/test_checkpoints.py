"""Checkpoints as strangers have them: the encoder's tensors are those that were saved, or the checkpoint is refused."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import small, words
from safetensors.torch import save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertweetTokenizer

from conftest import FAMILIES
from encoder_reduction.errors import UserError
from encoder_reduction.models import checkpoints
from encoder_reduction.models.architectures import family_of
from encoder_reduction.plan.sections import Checkpoint

HALF = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True)
class Stranger:
    """How somebody saved a classifier of two layers.

    Attributes:
        prefix: before every name, as ``module.``.
        within: between the encoder and its layers, as where only these were compiled.
        classes: of the head that it brings; 0 for none.
    """

    family: str = "bert"
    prefix: str = ""
    within: str = ""
    dtype: str = "float32"
    classes: int = 2
    layout: str = "safetensors"
    dropped: int | None = None
    tokens: int = 50

    def save(self, folder: Path) -> dict[str, torch.Tensor]:
        """Write it; the encoder's tensors as they are stored."""
        network, bare = small(self.family, 2, 2, 4, 16), family_of
        backbone = bare(network).backbone
        encoder = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(f"{backbone}.")}
        encoder = {name: tensor.to(HALF[self.dtype]).clone() for name, tensor in encoder.items()}
        state = dict(encoder)
        if self.dropped is not None:
            candidates = [name for name in sorted(state) if "pooler" not in name]
            del state[candidates[self.dropped % len(candidates)]]
        if self.classes:
            state["classifier.weight"] = torch.full((self.classes, 8), 9.0, dtype=HALF[self.dtype])
        layers = f"{backbone}.{bare(network).layers.partition('.')[0]}."
        state = {self.prefix + name.replace(layers, layers + self.within): tensor for name, tensor in state.items()}
        config = network.config.to_dict() | {"dtype": self.dtype}
        if self.classes:
            config["id2label"] = {str(index): f"CLASS {index}" for index in range(self.classes)}
            config["label2id"] = {f"CLASS {index}": index for index in range(self.classes)}
            config["problem_type"] = "multi_label_classification"
        (folder / "config.json").write_text(json.dumps(config))
        _write(state, folder, self.layout)
        words(self.tokens).save_pretrained(folder)
        return {name.removeprefix(f"{backbone}."): tensor.float() for name, tensor in encoder.items()}


def _write(state, folder, layout):
    if layout == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    elif layout == "safetensors":
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    else:
        names = sorted(state)
        files = {name: f"model-0000{index % 2 + 1}-of-00002.safetensors" for index, name in enumerate(names)}
        for file in set(files.values()):
            save_file({name: state[name] for name in names if files[name] == file}, folder / file, {"format": "pt"})
        index = {"metadata": {"total_size": 1}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def load(folder, seed=1, family=None):
    return checkpoints.load(Checkpoint(name="x", source=str(folder)), seed, family)


def head_of(model):
    backbone = family_of(model).backbone
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(f"{backbone}.")}


@pytest.fixture(scope="module")
def fresh_heads(tmp_path_factory):
    """What seed 1 draws for a checkpoint that brings no head."""
    heads = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        Stranger(family, classes=0).save(folder)
        heads[family] = head_of(load(folder)[0])
    return heads


strangers = st.builds(
    Stranger,
    family=st.sampled_from(FAMILIES),
    prefix=st.sampled_from(["", "module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.encoder."]),
    within=st.sampled_from(["", "", "_orig_mod.", "_fsdp_wrapped_module."]),
    dtype=st.sampled_from(list(HALF)),
    classes=st.sampled_from([0, 2, 3]),
    layout=st.sampled_from(["bin", "safetensors", "shards"]),
    dropped=st.one_of(st.none(), st.none(), st.integers(0, 1000)),
    tokens=st.sampled_from([50, 50, 30, 51, 4]),
)


@settings(max_examples=60, deadline=None)
@given(stranger=strangers)
def test_the_encoder_is_the_one_that_was_saved_or_it_is_refused(stranger, fresh_heads):
    whole = stranger.dropped is None and stranger.tokens in (30, 50)
    with TemporaryDirectory() as folder:
        saved = stranger.save(Path(folder))
        if not whole:
            with pytest.raises(UserError, match=r"^Checkpoint '.*'") as refused:
                load(folder)
            assert "\n" not in str(refused.value)
            return
        model, tokenizer = load(folder)
    found = model.get_submodule(family_of(model).backbone).state_dict()
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    head = head_of(model)
    assert all(torch.equal(head[name], tensor) for name, tensor in fresh_heads[stranger.family].items())
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert (model.config.num_labels, model.config.problem_type, model.config.dtype) == (2, None, torch.float32)
    assert len(tokenizer) == stranger.tokens


def test_the_seed_decides_the_head_of_a_checkpoint(tmp_path):
    Stranger().save(tmp_path)
    heads = [load(tmp_path, seed)[0].classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_what_is_drawn_is_said(tmp_path, capsys):
    network = AutoModelForMaskedLM.from_config(small("bert", 2, 2, 4, 16).config)
    network.save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    model, _ = load(tmp_path, seed=3)
    assert "drawn with seed 3: bert.pooler.dense, classifier.\n" in capsys.readouterr().err
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, network.bert.embeddings.word_embeddings.weight)
    assert torch.equal(model.bert.pooler.dense.weight, load(tmp_path, seed=3)[0].bert.pooler.dense.weight)


def edited(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("values", "words_of_it"),
    [
        ({"num_hidden_layers": 1}, "16 not part of the network (bert.encoder.layer.1."),
        ({"num_hidden_layers": 3}, "16 missing (bert.encoder.layer.2."),
        ({"intermediate_size": 20}, "6 of another shape (bert.encoder.layer.0."),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised"),
        ({"model_type": "albert"}, "'albert' cannot be reduced; choose a checkpoint of one of: bert,"),
    ],
)
def test_weights_that_are_not_what_the_configuration_says_are_refused(tmp_path, values, words_of_it):
    Stranger().save(tmp_path)
    edited(tmp_path, **values)
    with pytest.raises(UserError) as refused:
        load(tmp_path)
    assert words_of_it in str(refused.value)


def test_two_encoders_in_one_file_are_not_guessed_at(tmp_path):
    Stranger().save(tmp_path)
    state = small("bert", 2, 2, 4, 16).state_dict()
    _write({f"{side}.{name}": tensor.clone() for side in ("query", "passage") for name, tensor in state.items()},
           tmp_path, "safetensors")  # fmt: skip
    with pytest.raises(UserError, match="missing"):
        load(tmp_path)


def test_values_that_are_not_finite_are_refused(tmp_path):
    Stranger().save(tmp_path)
    state = small("bert", 2, 2, 4, 16).state_dict()
    state["bert.embeddings.word_embeddings.weight"][7, 3] = float("nan")
    _write(state, tmp_path, "safetensors")
    with pytest.raises(UserError, match=r"not finite, in embeddings\.word_embeddings\.weight"):
        load(tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 440473133\n"


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("damage", ["pointer", "cut"])
def test_a_file_that_is_a_pointer_or_cut_off_is_named(tmp_path, file, damage):
    Stranger(layout="bin" if file.endswith(".bin") else "safetensors").save(tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(POINTER if damage == "pointer" else whole[: len(whole) * 2 // 3])
    with pytest.raises(UserError) as refused:
        load(tmp_path)
    said = str(refused.value)
    assert "\n" not in said
    if damage == "pointer":
        assert f"{tmp_path / file} is a git-lfs pointer" in said
    elif "model." in file:
        assert f"{tmp_path / file} is damaged or cut off" in said


def test_a_pointer_that_nobody_reads_does_not_matter(tmp_path):
    Stranger().save(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(POINTER)
    load(tmp_path)


def test_another_family_than_the_models_is_refused(tmp_path):
    Stranger("roberta").save(tmp_path)
    assert load(tmp_path, family="roberta")
    with pytest.raises(UserError, match="is of the family roberta, but model=bert; give model=roberta"):
        load(tmp_path, family="bert")


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_without_a_tokenizer_are_refused(tmp_path, family):
    Stranger(family).save(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="as where the tokenizer's files are missing"):
        load(tmp_path)


def test_a_tokenizer_without_padding_is_refused(tmp_path):
    Stranger().save(tmp_path)
    words(pad_token=None).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="without a padding token"):
        load(tmp_path)


def test_token_types_are_left_to_those_who_take_them(tmp_path):
    Stranger("distilbert").save(tmp_path)
    words(model_input_names=["input_ids", "token_type_ids", "attention_mask"]).save_pretrained(tmp_path)
    _, tokenizer = load(tmp_path)
    assert list(tokenizer("good film")) == ["input_ids", "attention_mask"]


def test_padding_is_never_read_as_text(tmp_path):
    """Some tokenizers are saved as giving ids only; the mask tells which of them are padding."""
    Stranger().save(tmp_path)
    words(model_input_names=["input_ids"]).save_pretrained(tmp_path)
    _, tokenizer = load(tmp_path)
    padded = tokenizer(["good film", "good"], padding=True)
    assert padded["attention_mask"] == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_what_transformers_warns_of_is_one_line(tmp_path, caplog):
    """Of the library's own lines, the report of the weights is judged and not repeated."""
    Stranger("roberta", classes=3).save(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    bertweet(tmp_path)
    edited(tmp_path, pad_token_id=1)
    _, tokenizer = load(tmp_path)
    assert isinstance(tokenizer, BertweetTokenizer)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("encoder_reduction")]
    assert len(lines) <= 1  # where the package emoji is missing, BERTweet's tokenizer says so
    assert all("emoji is not installed" in line and "\n" not in line for line in lines)


def bertweet(folder):
    """A tokenizer written in Python."""
    (folder / "vocab.txt").write_text("".join(f"{word} 9\n" for word in ["good</w>", "film</w>", *"abcdefg"]))
    (folder / "bpe.codes").write_text("g o 9\ngo o 8\ngoo d</w> 7\n")
    settings = {"tokenizer_class": "BertweetTokenizer", "model_max_length": 20}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained(folder)


def test_a_tokenizer_written_in_python_is_saved_with_all_that_it_was_read_from(tmp_path):
    """Transformers' own saving leaves out what BERTweet's tokenizer needs, and words fall apart at the next reading."""
    Stranger("roberta").save(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    bertweet(tmp_path)
    edited(tmp_path, pad_token_id=1)
    tokenizer, folder = load(tmp_path)[1], tmp_path
    expected = tokenizer("good film")["input_ids"]
    for name in ("once", "twice"):  # as a run does, and the transfer from it
        folder = tmp_path / name
        small("roberta", 2, 2, 4, 16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        edited(folder, pad_token_id=1)
        _, tokenizer = checkpoints.load_folder(folder)
        assert tokenizer("good film")["input_ids"] == expected


def test_a_network_that_counts_from_other_padding_is_said(tmp_path, caplog):
    Stranger("roberta").save(tmp_path)
    edited(tmp_path, pad_token_id=1)
    load(tmp_path)
    assert "pads with id 0, but its network takes id 1 for padding ('[UNK]')" in caplog.text


def test_a_runs_own_folder_keeps_its_head_and_must_be_whole(tmp_path):
    model = small("bert", 2, 2, 4, 16)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    again, _ = checkpoints.load_folder(tmp_path)
    assert torch.equal(again.classifier.weight, model.classifier.weight.float())
    assert again.dtype == again.config.dtype == torch.float32
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "classifier.bias"}
    _write(state, tmp_path, "safetensors")
    with pytest.raises(UserError, match=r"1 missing \(classifier\.bias\)"):
        checkpoints.load_folder(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("names", [("NEGATIVE", "POSITIVE"), ("pos", "neg")])
def test_a_trained_head_is_cut_with_its_classes_in_our_order(tmp_path, family, names):
    model = small(family, 2, 2, 4, 16, spread=0.2)
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    loaded, _ = checkpoints.load_trained(Checkpoint(name="x", source=str(tmp_path)), family)
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    with torch.no_grad():
        expected = model.float()(**batch).logits
        expected = expected.flip(-1) if names[0] == "pos" else expected
        torch.testing.assert_close(loaded(**batch).logits, expected)
    assert loaded.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_trained_head_is_found_behind_what_wrappers_put_before_its_name(tmp_path, prefix):
    model = small("roberta", 2, 2, 4, 16, spread=0.2)
    model.config.id2label, model.config.label2id = {0: "neg", 1: "pos"}, {"neg": 0, "pos": 1}
    state = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    words().save_pretrained(tmp_path)
    loaded, _ = checkpoints.load_trained(Checkpoint(name="x", source=str(tmp_path)))
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_a_checkpoint_without_a_head_or_of_three_classes_cannot_be_cut_with_its_head(tmp_path):
    checkpoint = Checkpoint(name="x", source=str(tmp_path))
    Stranger(classes=0).save(tmp_path)
    with pytest.raises(UserError, match="brings no classification head, which start=checkpoint cuts"):
        checkpoints.load_trained(checkpoint)
    Stranger(classes=3).save(tmp_path)
    with pytest.raises(UserError, match=r"1 missing \(classifier\.bias"):
        checkpoints.load_trained(checkpoint)
    model = small("bert", 2, 2, 4, 16)
    config = model.config.to_dict() | {"id2label": {"0": "negative", "1": "neutral", "2": "positive"}}
    type(model)(type(model.config)(**config)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="calls its classes negative, neutral, positive; start=checkpoint needs two"):
        checkpoints.load_trained(checkpoint)
