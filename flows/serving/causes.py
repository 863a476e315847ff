"""Why a start failed: causes told from the log, each with words and what to do."""

from __future__ import annotations

import re
from collections import deque
from enum import Enum
from pathlib import Path

from flows.errors import ServingError
from flows.serving.plain import plain

LOG_LINES = 50
# How far back the cause is looked for: when a worker of vLLM fails, 150 lines of other processes follow.
SEARCHED_LINES = 1000
# What Python prints at its end, whatever it ended of.
NOISE = re.compile(
    r"^nanobind: | - leaked | - \.\.\. skipped|^See https://nanobind|UserWarning: resource_tracker: |"
    r"^ *warnings\.warn\('resource_tracker"
)
# The line in which an error is told, after the mark that vLLM's processes put before each of theirs.
TOLD = re.compile(
    r"^(?:\(\S+ pid=\d+\) ERROR [^\]]*\] )?"
    r"((?:\w+\.)*\w*(?:Error|Exception): .+|  Value error, .+|(?:\S+: )?error: .+|.*No such option: [^│]+)"
)
# vLLM's words when one of its workers ended without any: it was killed.
KILLED_WORKER = re.compile(r"WorkerProc initialization failed|Failed core proc\(s\): \{\}")
NOT_THE_ROOT = re.compile(r"root cause|stack trace|validation errors? for")


class Cause(Enum):
    """A kind of failure. The first whose pattern the log holds is taken, so the order is from plain to vague."""

    words: str
    remedy: str
    pattern: str

    PORT_IN_USE = (
        "port in use",
        "Choose another port, or 0 for a free one.",
        r"address already in use|\[Errno 98\]",
    )
    DISK_FULL = (
        "disk full",
        "Free space where the model folder, the caches (HF_HOME, ~/.cache) and the logs lie, then start again.",
        r"No space left on device|\[Errno 28\]|Disk quota exceeded|StorageFull",
    )
    OUT_OF_MEMORY = (
        "out of memory",
        "Free memory (other endpoints: python -m flows.serving list), serve a smaller model, or give it a shorter "
        "longest context.",
        r"out of memory|OutOfMemoryError|MemoryError|can't allocate memory|Cannot allocate memory|std::bad_alloc|"
        r"^kubernetes: OOMKilled|"
        r"No available memory for the cache blocks|larger than the (available|maximum) (KV )?cache|"
        r"Free memory on device .* is less than desired|is less than requested memory for kv|"
        r"failed to allocate|ErrorOutOfDeviceMemory",
    )
    IMAGE = (
        "image cannot be pulled",
        "Check its name and tag, and that the cluster may read its registry (serve.kubernetes.image_pull_secrets).",
        r"^kubernetes: (ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|ImageInspectError)",
    )
    NO_ROOM = (
        "no node has room",
        "Ask for less (serve.kubernetes: cpus, memory_gib, gpus), tolerate the nodes' taints, or have nodes added.",
        r"^kubernetes: (Unschedulable|SchedulerError)",
    )
    QUOTA = (
        "refused by the namespace",
        "The line of the log that begins with kubernetes: says which quota or policy; free some, or ask for more.",
        r"^kubernetes: (FailedCreate|FailedQuota)",
    )
    SECRET = (
        "a Secret or another setting of the pod is missing",
        "The line of the log that begins with kubernetes: names it; make it in the namespace.",
        r"^kubernetes: (CreateContainerConfigError|CreateContainerError)",
    )
    PRE_START = (
        "a pre-start action failed",
        "The line before the log's last says why; mend that action in model-definition.yaml.",
        r"pre_start action \d+ \(\w+\) failed",
    )
    BAD_OPTION = (
        "bad option",
        "The server does not know an option or does not accept its value; the log names it.",
        r"unrecognized arguments|error: argument |error: invalid argument|invalid choice:|No such option|"
        r"unexpected extra argument|Invalid value for|error: unknown argument|max_model_len \(\d+\) is greater than|"
        r"must be divisible by tensor parallel|Unknown quantization method|No such command|requires an argument|"
        r"Cannot find the config file for|LoRA rank \d+ is greater than|invalid tool call parser",
    )
    GATED_MODEL = (
        "gated or private model",
        "Accept the model's terms on its page and put a token that may read it (HF_TOKEN, NGC_API_KEY) into the "
        "environment; name it in serve.secret_variables.",
        r"gated repo|GatedRepoError|Access to model .* is restricted|401 Client Error|403 Client Error|"
        r"401 Unauthorized|403 Forbidden|Invalid username or password|authentication (error|failed|required)",
    )
    GPU = (
        "GPU or driver",
        "Look at `nvidia-smi`: the driver must be there, be new enough for this build, and show a free GPU.",
        r"CUDA error|no kernel image is available|NVIDIA driver|CUDA driver version is insufficient|libcuda\.so|"
        r"No CUDA GPUs are available|Torch not compiled with CUDA|Failed to infer device type|cudaError|"
        r"CUDA unknown error|NCCL error|HIP error",
    )
    UNSUPPORTED_MODEL = (
        "unsupported architecture",
        "This server does not know the model's architecture (config.json): take a newer version of it or another "
        "variant.",
        r"does not recognize this architecture|architectures? .* (is|are) not supported|unknown model architecture|"
        r"has no (vLLM|SGLang) implementation|Unsupported architecture|Unsupported CPU attention configuration",
    )
    UNKNOWN_MODEL = (
        "unknown model",
        "The folder holds no model that this server can load: it needs config.json of a supported architecture, "
        "tokenizer files and weights.",
        r"Unrecognized (model|processing class|configuration class)|Error no file named|"
        r"does not appear to have a file named|model type `|Incorrect path_or_model_id|"
        r"Cannot find any model weights|Couldn't instantiate the backend tokenizer",
    )
    MISSING_PROGRAM = (
        "missing program",
        "The program or Python package is not installed where the server runs; the log names it.",
        r"command not found|: not found$|No module named|ModuleNotFoundError|executable file not found|"
        r"failed to exec|\bexec \S+ failed",
    )
    MISSING_PATH = (
        "missing path",
        "Check that the model folder exists and that this user may read it. A model named as on a hub is looked for "
        "there only with HF_HUB_OFFLINE=0 in serve.environment.",
        r"outgoing traffic has been disabled|No adapter found for|No such file or directory|FileNotFoundError|"
        r"Repo id must be in the form|Permission denied|does not exist",
    )
    OTHER = ("unknown", "The log says more.", r"")

    def __new__(cls, words: str, remedy: str, pattern: str) -> Cause:
        """Keep remedy and pattern beside the words."""
        member = object.__new__(cls)
        member._value_ = member.words = words
        member.remedy = remedy
        member.pattern = pattern
        return member


class StartError(ServingError):
    """A server did not become healthy; `cause` is its kind, `log_lines` the end of its log."""

    def __init__(self, message: str, cause: Cause, log_lines: list[str]) -> None:
        self.cause = cause
        self.log_lines = log_lines
        log = "".join(f"\n  | {line}" for line in log_lines)
        super().__init__(f"{message}\nLast {len(log_lines)} lines of the log:{log}" if log else message)


def worth_showing(log_lines: list[str]) -> list[str]:
    """The last `LOG_LINES` of the lines, but for what says nothing."""
    return [plain(line) for line in _without_noise(log_lines)][-LOG_LINES:]


def told(log_lines: list[str]) -> str:
    """The error in the server's own words, in one line: the last that points at no other; empty if there is none."""
    lines = [plain(line) for line in log_lines]
    found = [match[1] for line in lines if (match := TOLD.match(line)) and not NOT_THE_ROOT.search(line)]
    return found[-1].partition(" [type=")[0].strip()[:300] if found else ""


def classify(log_lines: list[str], exit_code: int | None = None) -> Cause:
    """The cause of a failed start. A process killed by SIGKILL that nobody sent is out of memory: the kernel's way."""
    if exit_code in (-9, 137):
        return Cause.OUT_OF_MEMORY
    for lines in (worth_showing(log_lines), _without_noise(log_lines)):
        if (cause := _first_that_fits(lines)) is not Cause.OTHER:
            return cause
    killed = not told(log_lines) and any(KILLED_WORKER.search(line) for line in log_lines)
    return Cause.OUT_OF_MEMORY if killed else Cause.OTHER


def _without_noise(log_lines: list[str]) -> list[str]:
    return [line for line in log_lines if not NOISE.search(line)]


def _first_that_fits(log_lines: list[str]) -> Cause:
    text = "\n".join(log_lines)
    return next(cause for cause in Cause if re.search(cause.pattern, text, re.IGNORECASE | re.MULTILINE))


def last_lines(log: Path, count: int = LOG_LINES) -> list[str]:
    """The last lines of a log; a progress bar's redrawn states count as one line."""
    try:
        with log.open(encoding="utf-8", errors="replace", newline="\n") as stream:
            return [line.rstrip().rpartition("\r")[2] for line in deque(stream, count)]
    except FileNotFoundError:
        return []
