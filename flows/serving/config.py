"""What a person chooses when a model is served."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from flows.config import Config
from flows.serving.front.options import FrontOptions
from flows.serving.names import NAME
from flows.serving.promotion_options import PromotionOptions
from flows.serving.runtimes.docker import DockerOptions
from flows.serving.runtimes.external import ExternalOptions
from flows.serving.runtimes.kubernetes_options import KubernetesOptions
from flows.serving.variants.command import CommandOptions
from flows.serving.variants.custom import CustomOptions
from flows.serving.variants.llama_cpp import LlamaCppOptions
from flows.serving.variants.nim import NimOptions
from flows.serving.variants.sglang import SglangOptions
from flows.serving.variants.transformers_serve import TransformersOptions
from flows.serving.variants.vllm import VllmOptions
from flows.serving.watch_options import WatchOptions

MODEL_NAME = r"^(\{model_path\}|[A-Za-z0-9/][A-Za-z0-9._/:@+-]{0,255})?$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _endpoint_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(
            f"the endpoint name {name[:80]!r} may hold lower-case letters a to z, digits and dashes (not first or "
            "last) only, 1 to 63 characters, as trade-terms-2"
        )
    return name


def _model_name(name: str) -> str:
    if not re.fullmatch(MODEL_NAME, name) or ".." in name:
        raise ValueError(
            f"the model name {name[:80]!r} may hold letters a to z, digits and . _ - / : @ + only, up to 256 "
            "characters, as acme/trade-terms; or it is {model_path}"
        )
    return name


class ServeConfig(Config):
    """How a model is served, where, and under which name."""

    enabled: bool = Field(default=True, title="Serve", description="Serve the model if the gate passes.")
    # The patterns are for the form; the validators say the same in words.
    name: Annotated[str, AfterValidator(_endpoint_name)] = Field(
        default="domain-model",
        title="Endpoint name",
        description="What the endpoint is called: lower-case letters, digits and dashes, 1 to 63 characters. "
        "A name that already serves another model is moved to the new one once that is healthy.",
        json_schema_extra={"pattern": NAME},
    )
    variant: Literal["transformers", "vllm", "nim", "command", "sglang", "llama-cpp", "custom"] = Field(
        default="transformers",
        title="Variant",
        description="Which model server runs: transformers is `transformers serve` (CPU or GPU, no further install), "
        "vllm, sglang and llama-cpp are those servers, nim an NVIDIA NIM container, command any command line or image, "
        "custom what the model folder's model-definition.yaml says.",
    )
    runtime: Literal["process", "docker", "kubernetes", "external"] = Field(
        default="process",
        title="Runtime",
        description="Where the server runs: process is a process of this machine, docker a container of its Docker or "
        "Podman engine (Linux), from the image that the variant's options name, kubernetes pods of a cluster, external "
        "a server that somebody else runs already, for which variant and model are not used.",
    )
    served_model_name: Annotated[str, AfterValidator(_model_name)] = Field(
        default="",
        title="Model name",
        description="What clients call the model; empty means the endpoint's name where the server can rename, "
        "for transformers the model folder's path, and what the server itself calls it otherwise. {model_path} stands "
        "for that path.",
        json_schema_extra={"pattern": MODEL_NAME},
    )
    port: int = Field(
        default=0,
        title="Port",
        description="TCP port on 127.0.0.1; 0 means a free one. A model that replaces another one of the same name "
        "is first started beside it, so it gets a free port when the old one holds this one.",
        ge=0,
        le=65535,
    )
    threads: int = Field(
        default=1,
        title="Threads",
        description="CPU threads of the server (OpenMP, torch). On cores shared with other work more threads are "
        "several times slower.",
        ge=1,
        le=1024,
    )
    startup_budget_s: float = Field(
        default=0,
        title="Startup budget (s)",
        description="Seconds from start until the model has answered a question; longer counts as failed. 0 means the "
        "variant's own: 1800 for vllm, sglang and nim, 600 for transformers and llama-cpp, 120 for command, and what "
        "the definition says for custom.",
        ge=0,
        le=86400,
    )
    allow_pickle: bool = Field(
        default=False,
        title="Allow pickle",
        description="Serve weights that are Python pickles (.bin, .pt, .pth, .pkl, .ckpt). Loading one runs whatever "
        "code its maker put in, so allow it for your own files only.",
    )
    environment: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=[^\x00]*$", max_length=8192)]] = Field(
        default=[],
        max_length=200,
        title="Environment",
        description="Environment variables of the server, NAME=value an entry; no secrets.",
    )
    secret_variables: list[Annotated[str, Field(pattern=VARIABLE, max_length=128)]] = Field(
        default=[],
        max_length=100,
        title="Secret variables",
        description="Names of environment variables that are handed to the server with the value they have where the "
        "flow runs, as HF_TOKEN. The values are not stored.",
    )
    promotion: PromotionOptions = Field(
        default=PromotionOptions(),
        title="Promotion",
        description="What a model must show through its live endpoint before the name moves to it.",
    )
    front: FrontOptions = Field(
        default=FrontOptions(), title="Front", description="One address for the name, and who may ask there."
    )
    watch: WatchOptions = Field(
        default=WatchOptions(), title="Watching", description="What the watcher may do by itself."
    )
    docker: DockerOptions = Field(default=DockerOptions(), title="Docker", description="Options of the runtime docker.")
    kubernetes: KubernetesOptions = Field(
        default=KubernetesOptions(), title="Kubernetes", description="Options of the runtime kubernetes."
    )
    external: ExternalOptions = Field(
        default=ExternalOptions(), title="External", description="Options of the runtime external."
    )
    transformers: TransformersOptions = Field(
        default=TransformersOptions(), title="transformers", description="Options of the variant transformers."
    )
    vllm: VllmOptions = Field(default=VllmOptions(), title="vLLM", description="Options of the variant vllm.")
    nim: NimOptions = Field(default=NimOptions(), title="NIM", description="Options of the variant nim.")
    command: CommandOptions = Field(
        default=CommandOptions(), title="Command", description="Options of the variant command."
    )
    sglang: SglangOptions = Field(default=SglangOptions(), title="SGLang", description="Options of the variant sglang.")
    llama_cpp: LlamaCppOptions = Field(
        default=LlamaCppOptions(), title="llama.cpp", description="Options of the variant llama-cpp."
    )
    custom: CustomOptions = Field(default=CustomOptions(), title="Custom", description="Options of the variant custom.")

    @property
    def section(self) -> str:
        """Name of the field that holds the variant's options."""
        return self.variant.replace("-", "_")

    @property
    def options(self) -> Config:
        """The options of the variant."""
        options: Config = getattr(self, self.section)
        return options
