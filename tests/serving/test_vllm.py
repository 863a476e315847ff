"""The variant `vllm` with the real engine (CPU build, `make vllm`): one server for all, then real failures."""

import contextlib
import os
import signal
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from flows.errors import ServingError
from flows.progress import silent
from flows.serving import listing, probe
from flows.serving.ask import ask
from flows.serving.causes import LOG_LINES, Cause, StartError
from flows.serving.config import ServeConfig
from flows.serving.history import History
from flows.serving.promotion import start_endpoint
from flows.serving.runtimes import process
from flows.serving.start import problems
from flows.serving.state import State
from flows.serving.stop import stop_endpoint
from flows.serving.thresholds import decide
from flows.serving.variants.common import CHECKOUT
from tests.serving.verifications import QUESTION, the_three_ways_of_asking

PYTHON = CHECKOUT / "build" / "vllm" / "bin" / "python"
pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"there is no {PYTHON}: `make vllm` makes it (5 minutes, 3.4 GB)"),
]
OPTIONS = {"dtype": "float32", "enforce_eager": True, "cpu_kv_cache_gib": 1, "max_model_len": 256}


@pytest.fixture(scope="module", autouse=True)
def _own_memory_of_tried_flags(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def random_adapter(base, folder):
    """A LoRA adapter of random weights, which therefore changes the answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    lora = LoraConfig(r=8, lora_alpha=64, init_lora_weights=False, target_modules=["q_proj", "v_proj", "o_proj"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def style(llama, tmp_path_factory):
    return random_adapter(llama, tmp_path_factory.mktemp("style"))


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("vllm") / "endpoints"


@pytest.fixture(scope="module")
def config(style):
    adapters = [{"name": "style", "path": str(style)}]
    options = OPTIONS | {"enable_lora": True, "adapters": adapters, "extra_flags": ["--seed", "7"]}
    return ServeConfig(name="fast", variant="vllm", vllm=options)


@pytest.fixture(scope="module")
def notes():
    return []


@pytest.fixture(scope="module")
def fast(llama, endpoints, config, notes):
    """One server for the whole module: its start takes 40 to 100 s."""
    endpoint = start_endpoint(config, llama, endpoints, lambda done, total, note="", /, **_: notes.append(note))
    yield endpoint
    stop_endpoint("fast", endpoints)


def changed(config, **options):
    return config.model_copy(update={"vllm": config.vllm.model_copy(update=options)})


def test_it_serves_under_a_name_of_ours_and_said_how_far_it_was(fast, llama, notes):
    assert (fast.state, fast.model, fast.identity, fast.root) == (State.HEALTHY, "fast", "root", str(llama))
    assert any("loading weights" in note for note in notes)
    assert not any("compiling" in note for note in notes), "eager: there is nothing to compile"
    the_three_ways_of_asking(fast)


def test_an_adapter_is_served_beside_its_base_by_name(fast, llama, style):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    listed = {model["id"]: model for model in httpx.get(f"{fast.url}/models", trust_env=False).json()["data"]}
    assert {name: (model["root"], model["parent"]) for name, model in listed.items()} == {
        "fast": (str(llama), None),
        "style": (str(style), "fast"),
    }
    assert probe.identity(fast) == "fast"
    with pytest.raises(probe.CertainError, match="Its model style is .*, not "):
        probe.identity(fast.model_copy(update={"model": "style"}))

    adapted = fast.model_copy(update={"model": "style"})
    the_three_ways_of_asking(adapted)
    assert ask(adapted, QUESTION, max_tokens=8) != ask(fast, QUESTION, max_tokens=8)

    tokenizer = AutoTokenizer.from_pretrained(llama)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), style)
    message = [{"role": "user", "content": QUESTION}]
    inputs = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    reply = tokenizer.decode(output, skip_special_tokens=True)
    # vLLM holds back the bytes of a character that is not whole yet.
    assert ask(adapted, QUESTION, max_tokens=8) == reply.rstrip("\ufffd")


def test_a_model_that_is_not_served_is_told_with_those_that_are(fast):
    client = OpenAI(base_url=fast.url, api_key="none", max_retries=0)
    with pytest.raises(Exception, match="`other` does not exist"):
        client.completions.create(model="other", prompt="Hi", max_tokens=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"extra_flags": ["--no-such-flag"]},
            "serve.vllm.extra_flags: the server does not take them: unrecognized arguments: --no-such-flag.",
            marks=pytest.mark.fault(
                "impossible option",
                on="vLLM",
                expected="refused before anything starts, in the words of the engine's own parser",
                action="nothing is started",
            ),
        ),
        ({"extra_flags": ["--enable-log-outputs"]}, "take them: --enable-log-outputs requires --enable-log-requests."),
        pytest.param(
            {"adapters": [{"name": "a", "path": "/no/such"}]},
            "adapters[0].path: There is no folder /no/such.",
            marks=pytest.mark.fault(
                "wrong path",
                on="an adapter of vLLM",
                expected="refused before anything starts, with field and path",
                action="nothing is started",
            ),
        ),
    ],
)
def test_what_the_engine_does_not_take_is_refused_before_anything_starts(
    fast, config, llama, endpoints, options, message, seen
):
    logs = list((endpoints / "logs").iterdir())
    seen.begin()
    with pytest.raises(ServingError) as error:
        start_endpoint(ServeConfig.model_validate(changed_values(config, options)), llama, endpoints, silent)
    seen(error.value)
    assert message in str(error.value)
    assert not isinstance(error.value, StartError)
    assert list((endpoints / "logs").iterdir()) == logs
    assert listing.list_records(endpoints) == [fast]


def changed_values(config, options):
    values = config.model_dump()
    return values | {"vllm": values["vllm"] | options}


def test_flags_are_tried_once(config, monkeypatch):
    assert problems(config) == []
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("tried again"))
    assert problems(config) == []


def failed(config, folder, endpoints, progress=silent):
    """A start that fails beside the one that serves."""
    before = listing.list_records(endpoints)
    with pytest.raises(StartError) as error:
        start_endpoint(config, folder, endpoints, progress)
    assert len(error.value.log_lines) <= LOG_LINES
    assert not any("nanobind" in line for line in error.value.log_lines)
    assert f"Cause: {error.value.cause.words}. {error.value.cause.remedy}\nIt said: " in str(error.value)
    assert listing.list_records(endpoints) == before
    assert [name for name, _ in process.list_owned(endpoints)] == ["fast"]
    return error.value


@pytest.mark.parametrize(
    ("options", "cause", "said"),
    [
        (
            {"max_model_len": 999_999},
            Cause.BAD_OPTION,
            "User-specified max_model_len (999999) is greater than the deri",
        ),
        pytest.param(
            {"cpu_kv_cache_gib": 4096},
            Cause.OUT_OF_MEMORY,
            "is less than requested memory for kv (4096.0 GiB)",
            marks=pytest.mark.fault(
                "out of memory",
                on="vLLM's cache",
                expected="FAILED when the process ends, cause `out of memory`",
                action="nothing is left running; the old one goes on serving",
            ),
        ),
        ({"tool_call_parser": "nosuch"}, Cause.BAD_OPTION, "invalid tool call parser: nosuch"),
    ],
)
def test_what_only_the_start_shows_is_told_with_its_cause(fast, config, llama, endpoints, options, cause, said, seen):
    seen.begin()
    error = failed(changed(config, extra_flags=[], **options), llama, endpoints)
    seen(error)
    assert error.cause is cause, str(error)
    assert said in str(error).partition("Last ")[0]
    assert "with exit code 1.\n" in str(error)


def test_a_port_lost_while_it_imports_is_told(fast, config, llama, endpoints):
    port = process.choose_port(0)
    with socket.socket() as thief:

        def steal(done, total, note="", /, **_):
            if not thief.getsockname()[1]:
                thief.bind(("127.0.0.1", port))
                thief.listen()

        error = failed(config.model_copy(update={"port": port}), llama, endpoints, steal)
    assert error.cause is Cause.PORT_IN_USE
    assert "It said: OSError: [Errno 98] Address already in use" in str(error)


def test_a_folder_without_a_tokenizer_is_told(fast, config, llama, endpoints, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(llama / name)
    error = failed(config, tmp_path, endpoints)
    assert error.cause is Cause.UNKNOWN_MODEL
    assert "It said: ValueError: Couldn't instantiate the backend tokenizer from one of:" in str(error)


def workers(endpoint, title):
    pids = []
    for pid in process.members(endpoint.process):
        with contextlib.suppress(OSError):
            if title in Path(f"/proc/{pid}/cmdline").read_bytes().decode():
                pids.append(pid)
    return pids


def checked(endpoint, history):
    """One check, as the watcher counts it, that waits 2 s for an answer."""
    error = None
    try:
        probe.verify(endpoint, 2)
    except probe.ProbeError as problem:
        error = problem
    history.state, why = decide(history, State.HEALTHY, error, endpoint.failure_threshold, datetime.now(UTC))
    return history.state, why


@pytest.mark.fault(
    "SIGSTOP of the engine",
    on="vLLM",
    expected="DEGRADED at the second check, UNHEALTHY at the third, while /health goes on saying 200",
    action="events endpoint.degraded and endpoint.unhealthy; ended and started again if the settings say so",
)
def test_a_stuck_engine_is_found_out_though_its_health_path_goes_on_answering(fast, seen):
    history = History(state=State.HEALTHY)
    assert checked(fast, history) == (State.HEALTHY, "")
    (engine,) = workers(fast, "EngineCore")
    os.kill(engine, signal.SIGSTOP)
    seen.begin()
    try:
        states = [checked(fast, history) for _ in range(3)]
        assert httpx.get(fast.ready_url, trust_env=False).status_code == 200
        assert probe.identity(fast) == "fast"
    finally:
        os.kill(engine, signal.SIGCONT)
    assert [state for state, _ in states] == [State.HEALTHY, State.DEGRADED, State.UNHEALTHY]
    assert "No answer within 2 s from" in states[-1][1]
    assert "/chat/completions" in states[-1][1]
    seen(f"{states[-1][0].value}. {states[-1][1]}", passes_s=180)
    until = time.monotonic() + 60
    while checked(fast, history)[0] is not State.HEALTHY and time.monotonic() < until:
        time.sleep(0.1)
    assert history.state is State.HEALTHY


@pytest.mark.fault(
    "kill -9 of the server",
    on="vLLM, whose workers live on",
    expected="FAILED at once",
    action="a restart or stop ends the workers that outlived it",
)
def test_workers_that_outlive_a_killed_server_are_ended_by_stop(fast, endpoints, seen):
    seen.begin()
    os.kill(fast.process.pid, signal.SIGKILL)
    assert process.wait_until(lambda: not process.alive(fast.process), 10)
    left = workers(fast, "VLLM::")
    assert left, "vLLM's own processes outlive it"
    (ended,) = listing.list_records(endpoints)
    seen(ended)
    assert ended.state is State.FAILED
    stopped = stop_endpoint("fast", endpoints)
    assert stopped.state is State.STOPPED
    assert process.members(fast.process) == []
    assert process.list_owned(endpoints) == []
