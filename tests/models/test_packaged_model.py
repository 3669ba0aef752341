import pytest
import torch

from conftest import FAMILIES
from encoder_reduction.errors import UserError
from encoder_reduction.models import checkpoints
from encoder_reduction.plan import presets


def hidden_states(model, tokenizer, texts):
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        states = model.get_submodule(model.base_model_prefix)(**inputs).last_hidden_state
    return states[inputs["attention_mask"].bool()]


@pytest.mark.slow
def test_ports_agree_with_the_original_bert_on_real_text(packaged, movies):
    texts = movies["test"]["text"][:100]
    original = hidden_states(*packaged["bert"], texts)
    assert original.std() > 0.1
    for family in ("roberta", "distilbert"):
        torch.testing.assert_close(hidden_states(*packaged[family], texts), original, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_port_reloads_with_its_tokenizer(packaged, movies, family, tmp_path):
    model, tokenizer = packaged[family]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokenizer_again = checkpoints.load_folder(tmp_path)
    texts = movies["test"]["text"][:8]
    inputs = tokenizer_again(texts, padding=True, return_tensors="pt")
    assert list(inputs) == list(tokenizer(texts))
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    assert again.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.slow
def test_the_seed_decides_the_new_head():
    checkpoint = presets.load("packaged")[0].models["roberta"]
    heads = [checkpoints.load(checkpoint, seed)[0].classifier.out_proj.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("packaged:albert", ["'albert'", "bert, roberta, distilbert"]),
        ("/no/such/folder", ["/no/such/folder", "neither a folder here nor a hub id"]),
    ],
)
def test_a_missing_checkpoint_is_one_sentence(source, words):
    with pytest.raises(UserError) as error:
        checkpoints.load(presets.Checkpoint(name="x", source=source), seed=1)
    assert all(word in str(error.value) for word in words)
