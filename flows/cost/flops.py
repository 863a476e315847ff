"""Floating-point operations of training and of answering, counted from parameters and tokens.

A token costs 2 N operations forward and, in training, 4 N backward, half of which are the gradients of the weights
(6 N D in all; Kaplan et al. 2020, arXiv 2001.08361, section 2.1). Frozen weights, those under LoRA adapters, have no
such gradients: 4 N. N are the parameters that a token is multiplied with; looking a token up in an embedding is none.
Not counted: attention's products of activations, padding, and what activation checkpointing computes twice.
"""

from __future__ import annotations

from typing import Any

FORWARD = 2
BACKWARD = 2
GRADIENTS = 2


def training_flops_per_token(model: Any) -> float:
    """Operations for one token of one training step of a torch model, by which of its weights are trained."""
    trained, frozen = _parameters(model)
    return (FORWARD + BACKWARD) * (trained + frozen) + GRADIENTS * trained


def answering_flops_per_token(model: Any) -> float:
    """Operations for one token read or written."""
    return FORWARD * sum(_parameters(model))


def _parameters(model: Any) -> tuple[int, int]:
    """(trained, frozen) parameters, each once, without an embedding that is not the output head too."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    left_out = set()
    if embedding is not None and (head is None or head.weight is not embedding.weight):
        left_out = {id(parameter) for parameter in embedding.parameters()}
    trained = frozen = 0
    for parameter in model.parameters():
        if id(parameter) in left_out:
            continue
        if parameter.requires_grad:
            trained += parameter.numel()
        else:
            frozen += _count(parameter)
    return trained, frozen


def _count(parameter: Any) -> int:
    """How many weights it holds; bitsandbytes packs two of 4 bits in a byte."""
    packed = parameter.__class__.__name__ == "Params4bit" and parameter.dtype.itemsize == 1
    return 2 * int(parameter.numel()) if packed else int(parameter.numel())
