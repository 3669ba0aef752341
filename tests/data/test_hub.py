"""The paper preset against what the hub serves: the real clients, full-size checkpoints, a server on loopback."""

import copy
import json
import shutil
import subprocess
import sys

import mlflow
import numpy as np
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from hub_server import Hub, Repository
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from conftest import ROOT, SMALL, environment
from encoder_reduction.models import checkpoints
from encoder_reduction.plan import presets

pytestmark = pytest.mark.slow

WORDS = [
    "a",
    "film",
    "plot",
    "good",
    "bad",
    "dull",
    "fine",
    "wonderful",
    "boring",
    "actor",
    "scene",
    "was",
    "is",
    "not",
]
PAPER = yaml.safe_load((presets.PRESETS / "paper.yaml").read_text())


def wordpiece(size, **more):
    """A tokenizer of BERT's kind with a vocabulary of a real one's size."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [mark + chr(code) for code in range(97, 123) for mark in ("", "##")]
    words = [*special, *letters, *(word for word in WORDS if len(word) > 1)]
    words += [f"[unused{i}]" for i in range(size - len(words))]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return as_transformers_has_it(tokenizer, names, **more)


def as_transformers_has_it(tokenizer, names, **more):
    special = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special, **more)


# What RoBERTa's and DistilBERT's tokenizers give; no token types.
TWO_INPUTS = {"model_input_names": ["input_ids", "attention_mask"]}


def byte_level(size):
    """A tokenizer of RoBERTa's kind with a vocabulary of a real one's size."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"[unused{i}]" for i in range(size - len(words) - 1)] + ["<mask>"]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos": "<s>", "cls": "<s>", "pad": "<pad>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    return as_transformers_has_it(tokenizer, names, **TWO_INPUTS)


def checkpoint(folder, model, tokenizer):
    """As on the hub: weights as a masked language model, beside files that nobody here needs."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "tf_model.h5").write_bytes(b"another framework's weights")
    (folder / "README.md").write_text("A model card.")


def corpus(folder, names, rows):
    """In the layout of the hub's parquet data sets, sorted by label as IMDb is; ``rows`` by split."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    splits, files = [], []
    rng = np.random.default_rng(0)
    (folder / "plain_text").mkdir(parents=True)
    for split, count in rows.items():
        labels = [-1] * count if split == "unsupervised" else sorted(i % 2 for i in range(count))
        texts = [" ".join(rng.choice(WORDS, 12)) for _ in range(count)]
        data = Dataset.from_dict({"text": texts, "label": labels}, features=features)
        data.to_parquet(folder / "plain_text" / f"{split}-00000-of-00001.parquet")
        splits.append({"name": split, "num_bytes": 1, "num_examples": count})
        files.append({"split": split, "path": f"plain_text/{split}-*"})
    info = {"config_name": "plain_text", "features": features._to_yaml_list(), "splits": splits}
    card = {"dataset_info": info, "configs": [{"config_name": "plain_text", "data_files": files, "default": True}]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# A data set\n")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """What the paper preset asks for, under the commits that it pins; BERT in its full size, the others narrower."""
    root = tmp_path_factory.mktemp("hub")
    bert, roberta, distilbert = (PAPER["models"][name] for name in ("bert", "roberta", "distilbert"))
    narrow = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    made = {
        bert["source"]: (BertForMaskedLM(BertConfig()), wordpiece(30522)),
        roberta["source"]: (
            RobertaForMaskedLM(RobertaConfig(hidden_size=96, intermediate_size=384, **narrow)),
            byte_level(50265),
        ),
        distilbert["source"]: (
            DistilBertForMaskedLM(DistilBertConfig(dim=96, hidden_dim=384)),
            wordpiece(30522, **TWO_INPUTS),
        ),
    }
    for source, (model, tokenizer) in made.items():
        checkpoint(root / source, model, tokenizer)
    corpus(root / PAPER["source"]["source"], ["neg", "pos"], {"train": 200, "test": 80, "unsupervised": 50})
    corpus(root / PAPER["target"]["source"], ["1", "2"], {"train": 300, "test": 80})
    pinned = [bert, roberta, distilbert, PAPER["source"], PAPER["target"]]
    return {each["source"]: Repository(root / each["source"], each.get("revision", "b" * 40)) for each in pinned}


@pytest.fixture(scope="module")
def small_paper(tmp_path_factory):
    """The paper preset but for its numbers: few short examples, in what a CPU computes."""
    values = copy.deepcopy(PAPER) | {"name": "small-paper"}
    examples = {f"max_{split}_examples": 16 for split in ("train", "validation", "test")}
    values["fine_tuning"] |= {"precision": "fp32", "epochs": 1, "batch_size": 4, "max_length": 32, **examples}
    values["profiling"] |= {key: SMALL[key] for key in values["profiling"] if key in SMALL} | {"test_texts": 4}
    for section in values["reductions"].values():
        section["calibration_examples"] = 8
    values["source"]["validation_examples"] = values["target"]["validation_examples"] = 40
    path = tmp_path_factory.mktemp("paper") / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def prefetched(repositories, small_paper, command, tmp_path_factory):
    """A home whose hub cache `prefetch` has filled; the server is gone afterwards."""
    folder, hub = tmp_path_factory.mktemp("node"), Hub(repositories)
    env = {"HF_HOME": str(folder / "hf"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/store.db"}
    words = ["mlflow", "run", ROOT, "-e", "prefetch", "--env-manager", "local", "-P", f"preset={small_paper}"]
    result = command(*words, cwd=folder, env={**env, "HF_ENDPOINT": hub.address})
    hub.stop()
    assert result.returncode == 0, result.stderr
    return folder, {**env, "HF_HUB_OFFLINE": "1"}, result.stdout, hub.requests


def test_prefetch_says_what_it_fetched_and_leaves_the_rest(prefetched, repositories):
    _, _, said, requests = prefetched
    for source, repository in repositories.items():
        assert source in said
        assert repository.commit in said
    assert "109.5 M parameters" in said
    assert "160 train + 40 validation + 80 test" in said
    assert not [request for request in requests if "tf_model" in request]


EVERYTHING = """
import json, sys
from encoder_reduction.plan import presets
from encoder_reduction.runs.run import execute
preset, _ = presets.load(sys.argv[1])
for model in preset.models:
    for dim in presets.DIMENSIONS:
        outcome = execute(preset.plan("reduce", model, dim), progress=False)
        print(json.dumps([outcome.name, outcome.metrics["parameters"], outcome.metrics["train_examples"]]), flush=True)
outcome = execute(preset.plan("transfer", "bert", "hidden"), progress=False)
print(json.dumps([outcome.name, outcome.metrics["parameters"], outcome.metrics["train_examples"]]))
"""


def test_every_reduction_and_a_transfer_run_offline(prefetched, small_paper):
    folder, env, _, _ = prefetched
    result = subprocess.run(
        [sys.executable, "-c", EVERYTHING, small_paper], cwd=folder, capture_output=True, text=True,
        env=environment(**env, MLFLOW_EXPERIMENT_NAME="offline", PYTHONPATH=str(ROOT / "src")),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]
    # Pooler and head as transformers builds them; the table of docs/experiment_plan.md.
    assert dict((name, int(count)) for name, count, _ in rows if name.startswith("bert")) == {
        "bert/heads-6/seed-42": 95_314_178,
        "bert/hidden-384/seed-42": 33_360_770,
        "bert/layers-6/seed-42": 66_956_546,
        "bert/hidden-384/transfer/seed-42": 33_360_770,
    }
    assert len(rows) == 10
    client = mlflow.MlflowClient(env["MLFLOW_TRACKING_URI"])
    found = client.search_runs([client.get_experiment_by_name("offline").experiment_id])
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        tags = run.data.tags
        transfer = tags["stage"] == "transfer"
        assert tags["corpus_revision"] == ("b" * 40 if transfer else PAPER["source"]["revision"])
        assert tags["checkpoint_revision"] == PAPER["models"][tags["model"]]["revision"]


def test_mlflow_run_works_offline(prefetched, small_paper, command):
    folder, env, _, _ = prefetched
    words = ["mlflow", "run", ROOT, "-e", "reduce", "--env-manager", "local", "-P", "model=distilbert"]
    result = command(*words, "-P", "dim=layers", "-P", f"preset={small_paper}", cwd=folder, env=env)
    assert result.returncode == 0, result.stderr
    assert "distilbert/layers-3/seed-42" in result.stdout


def find(kind, source, home, **env):
    """What the real client finds, in a process of its own, since it reads its settings once."""
    code = (
        "import sys; from encoder_reduction import errors; from encoder_reduction.data import hub\n"
        "try:\n"
        "    print(hub.snapshot(*sys.argv[1:], None).folder)\n"
        "except errors.UserError as error:\n"
        "    sys.exit(str(error))\n"
    )
    env = {"HF_HOME": str(home), "PYTHONPATH": str(ROOT / "src"), **env}
    return subprocess.run(
        [sys.executable, "-c", code, kind, source], env=environment(**env), capture_output=True, text=True
    )


@pytest.fixture
def tiny(tmp_path):
    """A hub with one small checkpoint."""
    shape = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=1000, **shape)
    checkpoint(tmp_path / "me/tiny", BertForMaskedLM(config), wordpiece(1000))
    hub = Hub({"me/tiny": Repository(tmp_path / "me/tiny", "c" * 40)})
    yield hub
    hub.stop()


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "Checkpoint 'me/tiny' is not on the hub, or not for you"), (401, "log in with 'hf auth login'")],
)
def test_a_refusal_is_one_sentence(tiny, tmp_path, status, words):
    tiny.repositories["me/tiny"].status = status
    result = find("model", "me/tiny", tmp_path / "hf", HF_ENDPOINT=tiny.address)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("fault", [500, "cut"])
def test_a_passing_fault_ends_in_a_complete_download(tiny, tmp_path, fault):
    tiny.repositories["me/tiny"].faults = {"model.safetensors": [fault]}
    result = find("model", "me/tiny", tmp_path / "hf", HF_ENDPOINT=tiny.address)
    assert result.returncode == 0, result.stderr
    weights = tmp_path / f"hf/hub/models--me--tiny/snapshots/{'c' * 40}/model.safetensors"
    assert weights.read_bytes() == (tmp_path / "me/tiny/model.safetensors").read_bytes()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_refused_and_not_kept(tiny, tmp_path, file):
    tiny.repositories["me/tiny"].faults = {file: ["corrupt"]}
    result = find("model", "me/tiny", tmp_path / "hf", HF_ENDPOINT=tiny.address)
    assert result.returncode == 1
    assert f"arrived damaged: {file} differ from the hub's checksum and were removed" in result.stderr
    offline = find("model", "me/tiny", tmp_path / "hf", HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    again = find("model", "me/tiny", tmp_path / "hf", HF_ENDPOINT=tiny.address)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("env", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
@pytest.mark.parametrize(("kind", "option"), [("model", "checkpoint"), ("dataset", "corpus")])
def test_what_is_missing_without_a_network_is_named_with_the_command_that_fetches_it(tmp_path, kind, option, env):
    result = find(kind, "me/tiny", tmp_path / "hf", **env)
    assert result.returncode == 1
    assert "'me/tiny' is not whole on this machine and the hub cannot be asked" in result.stderr
    assert f"mlflow run . -e prefetch --env-manager local -P {option}=me/tiny" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_local_folder_is_taken_as_it_is(tiny, tmp_path):
    home = shutil.copytree(tmp_path / "me/tiny", tmp_path / "mine")
    result = find("model", str(home), tmp_path / "hf", HF_HUB_OFFLINE="1")
    assert result.stdout.strip() == str(home)
    model, tokenizer = checkpoints.load(presets.Checkpoint(name="mine", source=str(home)), seed=0)
    assert (model.config.num_labels, len(tokenizer)) == (2, 1000)
