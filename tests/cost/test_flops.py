import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from flows.cost.flops import answering_flops_per_token, training_flops_per_token


@pytest.fixture(params=["gemma-2", "llama-3"])
def model(request, tiny_models):
    return AutoModelForCausalLM.from_pretrained(tiny_models[request.param])


def multiplied(model):
    """Parameters that a token is multiplied with: of the tables only the output head, which Gemma shares."""
    embedding = model.get_input_embeddings().weight
    tied = embedding is model.get_output_embeddings().weight
    return sum(p.numel() for p in model.parameters()) - (0 if tied else embedding.numel())


def test_full_training_is_six_operations_a_parameter_and_answering_two(model):
    n = multiplied(model)
    assert training_flops_per_token(model) == 6 * n
    assert answering_flops_per_token(model) == 2 * n


def test_frozen_weights_under_adapters_have_no_gradients(model):
    n = multiplied(model)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapters = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert training_flops_per_token(adapted) == 4 * n + 6 * adapters
