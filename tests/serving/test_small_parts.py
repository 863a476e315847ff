import shlex
from inspect import signature
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.markup import render

from flows.errors import ConfigError, ServingError
from flows.issue_token import issue_token
from flows.serving.ask import curl_line, python_lines
from flows.serving.causes import Cause, StartError, classify, last_lines, told, worth_showing
from flows.serving.config import ServeConfig
from flows.serving.endpoint import ExternalRecord
from flows.serving.front.certificate import refused
from flows.serving.log_progress import progress_note
from flows.serving.names import NAME, NAME_OR_NONE
from flows.serving.promotion import Promotion
from flows.serving.registry import RUNTIMES, VARIANTS
from flows.serving.runtimes import process
from flows.serving.runtimes.kubernetes_options import DNS
from flows.serving.secret_names import inherited
from flows.serving.start import check, problems
from flows.serving.state import State
from flows.serving.variants import transformers_serve, vllm
from flows.stages.variants import NAME as TRAINING
from tests.serving.test_probe import endpoint_at


@pytest.mark.parametrize("name", ["", "Domain", "a b", "-a", "a-", "a.next", "../a", "a" * 64])
def test_a_name_that_is_no_endpoint_name_is_refused(name):
    with pytest.raises(ValidationError, match="name"):
        ServeConfig(name=name)
    assert ServeConfig(name="trade-terms-2").name == "trade-terms-2"


def test_every_field_has_a_title_and_a_description():
    for name, field in ServeConfig.model_fields.items():
        assert field.title, name
        assert field.description, name
        assert field.description.endswith("."), name


def test_every_variant_of_the_form_can_be_started():
    assert ServeConfig.model_json_schema()["properties"]["variant"].get("enum", ["transformers"]) == list(VARIANTS)
    assert ServeConfig.model_json_schema()["properties"]["runtime"]["enum"] == list(RUNTIMES)


def test_states_are_what_records_hold_and_have_words():
    expected = "PENDING STARTING HEALTHY DEGRADED UNHEALTHY FAILED DRAINING STOPPED UNVERIFIED"
    assert [state.value for state in State] == expected.split()
    assert all(state.words.endswith(".") for state in State)
    assert State("HEALTHY") is State.HEALTHY


def test_settings_differ_with_threads_and_port_and_model(tmp_path):
    def digest(model_dir=tmp_path, **changes):
        config = ServeConfig(**changes)
        return transformers_serve.launch(config, process.place(model_dir, config.port)).digest()

    assert digest() == digest(startup_budget_s=5, name="other")
    assert len({digest(), digest(threads=2), digest(port=8000), digest(model_dir=tmp_path / "b")}) == 4


# The lines are what transformers 5.24, vLLM 0.32 and the kernel really print.
@pytest.mark.parametrize(
    ("line", "code", "cause"),
    [
        (
            "ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8124): address already in use",
            1,
            Cause.PORT_IN_USE,
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", 1, Cause.OUT_OF_MEMORY),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried "
         "to allocate 8 bytes. Error code 12 (Cannot allocate memory)", 1, Cause.OUT_OF_MEMORY),
        ("Loading weights:  40%", -9, Cause.OUT_OF_MEMORY),
        ("OSError: Error no file named model.safetensors, or pytorch_model.bin, found in directory /m.", 1,
         Cause.UNKNOWN_MODEL),
        ("ValueError: The checkpoint you are trying to load has model type `blah` but Transformers does not recognize "
         "this architecture.", 1, Cause.UNSUPPORTED_MODEL),
        ("ValueError: Unrecognized processing class in /m. Can't instantiate a processor, a tokenizer", 1,
         Cause.UNKNOWN_MODEL),
        ("OSError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/m'.", 1, Cause.MISSING_PATH),
        ("OSError: [Errno 28] No space left on device: '/data/cache/x'", 1, Cause.DISK_FULL),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", 1, Cause.GPU),
        ("RuntimeError: Found no NVIDIA driver on your system.", 1, Cause.GPU),
        ("ImportError: libcuda.so.1: cannot open shared object file: No such file or directory", 1, Cause.GPU),
        ("api_server.py: error: unrecognized arguments: --no-such-flag", 2, Cause.BAD_OPTION),
        ("api_server.py: error: argument --dtype: invalid choice: 'int3' (choose from 'auto')", 2, Cause.BAD_OPTION),
        ("│ No such option: --no-such-flag                     │", 2, Cause.BAD_OPTION),
        ("  Value error, User-specified max_model_len (99999) is greater than the derived max_model_len", 1,
         Cause.BAD_OPTION),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url", 1,
         Cause.GATED_MODEL),
        ("  Value error, Model architectures ['XForCausalLM'] are not supported for now.", 1, Cause.UNSUPPORTED_MODEL),
        ("llama_model_load: error loading model: unknown model architecture: 'x'", 1, Cause.UNSUPPORTED_MODEL),
        ("(Worker pid=9) ERROR 11-25 06:33:24 [multiproc_executor.py:1063] ValueError: Available memory on node 0 "
         "(13.54/15.21 GiB) on kv cache allocation is less than requested memory for kv (4000.0 GiB).", 1,
         Cause.OUT_OF_MEMORY),
        ("ValueError: Free memory on device cuda:0 (5.1/79.1 GiB) on startup is less than desired GPU memory "
         "utilization (0.92, 72.8 GiB).", 1, Cause.OUT_OF_MEMORY),
        ("ValueError: To serve at least one request with the models's max seq len (131072), (16.0 GiB KV cache is "
         "needed, which is larger than the available KV cache memory (2.1 GiB).", 1, Cause.OUT_OF_MEMORY),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", 1,
         Cause.OUT_OF_MEMORY),
        ("Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace "
         "for root cause.", 1, Cause.OUT_OF_MEMORY),
        ("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}", 1,
         Cause.OUT_OF_MEMORY),
        ("  Value error, Cannot find the config file for awq [type=value_error, input_value=A, input_type=B]", 1,
         Cause.BAD_OPTION),
        ("  Value error, Total number of attention heads (4) must be divisible by tensor parallel size (3).", 1,
         Cause.BAD_OPTION),
        ("ValueError: LoRA rank 64 is greater than max_lora_rank 8.", 1, Cause.BAD_OPTION),
        ("KeyError: 'invalid tool call parser: nosuch (chose from { apertus,hermes })'", 1, Cause.BAD_OPTION),
        ("ValueError: Loading lora a failed: No adapter found for /no/such/adapter", 1, Cause.MISSING_PATH),
        ("RuntimeError: Cannot find any model weights with `/m`", 1, Cause.UNKNOWN_MODEL),
        ("ValueError: Couldn't instantiate the backend tokenizer from one of: ", 1, Cause.UNKNOWN_MODEL),
        ("(Worker pid=9) ERROR 11-25 06:17:43 [multiproc_executor.py:1063] RuntimeError: Unsupported CPU attention "
         "configuration: head_dim=16 isa=2 kv_cache_idx=0", 0, Cause.UNSUPPORTED_MODEL),
        ("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the "
         "specified revision on the local disk and outgoing traffic has been disabled.", 1, Cause.MISSING_PATH),
        ("OSError: You are trying to access a gated repo.\nMake sure to have access to it at "
         "https://huggingface.co/google/gemma-2-2b-it.\n403 Client Error.", 1, Cause.GATED_MODEL),
        ("/bin/bash: line 1: vllm: command not found", 127, Cause.MISSING_PROGRAM),
        ("/opt/python: No module named vllm", 1, Cause.MISSING_PROGRAM),
        ("mkdir: cannot create directory '/x': Permission denied\npre_start action 1 (mkdir) failed", 1,
         Cause.PRE_START),
        ("ZeroDivisionError: division by zero", 1, Cause.OTHER),
    ],
)  # fmt: skip
def test_causes_are_told_from_the_log(line, code, cause):
    assert classify(["Traceback (most recent call last):", line, ""], code) is cause


def test_the_cause_of_a_worker_is_found_above_what_the_other_processes_say_of_it():
    worker = "(Worker pid=9) ERROR 11-25 06:33:51 [multiproc_executor.py:1063] "
    log = [
        "(APIServer pid=7) WARNING 11-25 [system_utils.py:255] Errors like `OSError: [Errno 24] Too many open files`",
        f"{worker}FileNotFoundError: [Errno 2] No such file or directory: '/a/adapter_config.json'",
        f"{worker}vllm.exceptions.LoRAAdapterNotFoundError: Loading lora a failed: No adapter found for /a",
        "(EngineCore pid=8) ERROR 11-25 06:33:51 [core.py:1750] RuntimeError: Worker failed with error 'Loading lora a "
        "failed: No adapter found for /a', please check the stack trace above for the root cause",
        *['  File "uvloop/loop.pyx", line 1515, in uvloop.loop.Loop.run_until_complete'] * 100,
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
        "nanobind: leaked 4 instances!",
        ' - leaked instance 0x7fa5b3848b68 of type "triton._C.libtriton.ir.attribute"',
    ]
    assert classify(log, 1) is Cause.MISSING_PATH
    assert told(log) == "vllm.exceptions.LoRAAdapterNotFoundError: Loading lora a failed: No adapter found for /a"
    assert worth_showing(log) == log[-52:-2]


def test_what_python_says_of_shared_memory_at_its_end_is_no_cause():
    tracker = "/usr/lib/python3.11/multiprocessing/resource_tracker.py:267: UserWarning: resource_tracker: "
    end = [
        f"{tracker}'/psm_0067875f': [Errno 2] No such file or directory: '/psm_0067875f'",
        "  warnings.warn('resource_tracker: %r: %s' % (name, e))",
    ]
    cause = "ValueError: Available memory (9 GiB) is less than requested memory for kv (4096.0 GiB)."
    assert classify([cause, *["  frame"] * 100, *end], 1) is Cause.OUT_OF_MEMORY
    assert classify(["ZeroDivisionError: division by zero", *end], 1) is Cause.OTHER
    assert worth_showing([cause, *end]) == [cause]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("INFO: Started server process [1]", ""),
        ("pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig", ""),
        ("  Value error, It is too long. [type=value_error, input_value=A]", "Value error, It is too long."),
        ("api_server.py: error: unrecognized arguments: --x", "api_server.py: error: unrecognized arguments: --x"),
        ("│ No such option: --x                    │", "│ No such option: --x"),
        ("MemoryError: " + "x" * 1000, "MemoryError: " + "x" * 287),
    ],
)
def test_the_error_in_the_servers_own_words_is_one_line(line, words):
    assert told([line]) == words


def test_the_last_lines_of_a_log_hold_a_progress_bar_once(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"%d\n" % n for n in range(100)) + b"load:  0%\rload: 50%\rload: 100%\nd\xffne\n")
    lines = last_lines(log)
    assert len(lines) == 50
    assert lines[-3:] == ["99", "load: 100%", "d�ne"]
    assert last_lines(tmp_path / "none") == []
    assert str(StartError("It ended.", Cause.OTHER, lines[-1:])).endswith("Last 1 lines of the log:\n  | d�ne")


# The lines are those of transformers 5.24, vLLM 0.32 and huggingface_hub.
@pytest.mark.parametrize(
    ("lines", "note"),
    [
        ([], ""),
        (["INFO: Started server process"], ""),
        (["Fetching 10 files:  30%|███  | 3/10"], "downloading 30 %"),
        (["Fetching 10 files: 100%|", "Loading weights:  40%|████ | 116/290 [00:01]"], "loading weights 40 %"),
        (["Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00]"], "loading weights 50 %"),
        (["INFO 11-25 model_runner.py: Starting to load model /m..."], "loading weights"),
        (
            ["WARNING 11-25 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel"],
            "",
        ),
        (["INFO 11-25 [monitor.py:40] Starting torch.compile"], "compiling"),
        (["INFO 11-25 [cpu_model_runner.py:87] Warming up model for the compilation..."], "compiling"),
        (["INFO 11-25 [backends.py:399] Compiling a graph for compile range (1, 2048) takes 9.31 s"], "compiling"),
        (["INFO scheduler.py: Capture cuda graph begin. This can take up to several minutes."], "compiling"),
        (["Starting to load model /m...", "INFO backends.py:215 Dynamo bytecode transform time: 4.09 s"], "compiling"),
        (
            ["torch.compile takes 9 s", "Capturing CUDA graphs (PIECEWISE):  12%|█  | 8/67"],
            "capturing CUDA graphs 12 %",
        ),
    ],
)
def test_progress_of_a_start_reads_from_the_log(lines, note):
    assert progress_note(lines, vllm.launch(ServeConfig(), process.place(Path("/m"), 1)).signs) == note


@pytest.mark.parametrize(
    ("variable", "key"), [("", 'api_key="none",'), ("THEIR_KEY", 'api_key=os.environ["THEIR_KEY"],')]
)
def test_python_lines_send_a_key_only_where_one_is_wanted(variable, key):
    record = ExternalRecord(url="https://llm.example.org/v1", key_variable=variable)
    lines = python_lines(endpoint_at(record.url).model_copy(update={"runtime": "external", "process": record}), "Why?")
    compile(lines, "lines", "exec")
    assert f"    {key}\n" in lines
    assert ("os" in lines.split()) == bool(variable)


def test_a_curl_line_survives_quotes():
    line = curl_line(endpoint_at("http://127.0.0.1:9/v1"), 'What\'s an "air waybill"; $HOME?')
    assert r"$HOME" in shlex.split(line)[-1]
    assert shlex.split(line)[:3] == ["curl", "-s", "http://127.0.0.1:9/v1/chat/completions"]


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000])
def test_a_model_folder_whose_name_is_too_long_is_told_in_words(tmp_path, name):
    with pytest.raises(ServingError, match="Cannot read .*: File name too long"):
        check(ServeConfig(), tmp_path / name)


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "circle"])
def test_a_model_folder_that_can_be_none_is_told_in_words(tmp_path, path):
    (tmp_path / "circle").symlink_to("circle")
    given = Path(path) if path[0] == "~" else tmp_path / path
    with pytest.raises(ConfigError, match="^model: .* cannot be used as a folder: "):
        Promotion(ServeConfig(), given, tmp_path)


def test_a_certificate_of_nobody_is_told_in_words():
    assert refused("~nobody-of-this-name/x") == "~nobody-of-this-name/x: Could not determine home directory."


LIKE_SECRETS = "TOKEN SECRET KEY PGPASSWORD my_token HF_TOKEN_X OPENAI_APIKEY AWS_ACCESS_KEY_ID db_password MY_PASSWD"
ALIKE = "VLLM_MAX_TOKENS TOKENIZERS_PARALLELISM PWD MONKEY SSH_AUTH_SOCK"
BLOCK = str(signature(issue_token.fn).parameters["block"])


@pytest.mark.parametrize("name", LIKE_SECRETS.split())
def test_what_is_called_like_a_secret_is_refused_and_not_inherited(monkeypatch, name):
    (problem,) = problems(ServeConfig(environment=[f"{name}=x"]))
    assert problem.startswith(f"serve.environment: {name} looks like a secret")
    monkeypatch.setenv(name, "x")
    assert name not in inherited()


@pytest.mark.parametrize("name", ALIKE.split())
def test_what_only_sounds_like_a_secret_is_passed_on(monkeypatch, name):
    assert problems(ServeConfig(environment=[f"{name}=x"])) == []
    monkeypatch.setenv(name, "x")
    assert inherited()[name] == "x"


@pytest.mark.parametrize("pattern", [NAME, NAME_OR_NONE, TRAINING, DNS, BLOCK])
def test_patterns_are_printed_whole_where_square_brackets_are_markup(pattern):
    assert render(pattern).plain == pattern
