"""Model definition files, good and bad, and their pre-start actions run by a real shell."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.errors import ServingError
from flows.serving.config import ServeConfig
from flows.serving.definition import MAX_BYTES, NAME, HealthCheck, Metadata, Model, Service, read_definition
from flows.serving.pre_start import ACTIONS
from flows.serving.runtimes import process
from flows.serving.variants import custom
from flows.serving.variants.launch import Place

# As in Backend.AI's documentation.
ARTICLE = """\
models:
  - name: gemma-2-2b-it-trade
    model_path: /models
    service:
      pre_start_actions:
        - action: mkdir
          args: {path: /tmp/a}
      start_command: "vllm serve {model_path} --port 8000"
      shell: /bin/bash
      port: 8000
      health_check:
        enable: true
        path: /health
        interval: 5
        max_retries: 7
        max_wait_time: 3.5
        expected_status_code: 204
        initial_delay: 900
    metadata:
      author: someone
      title: A title
      version: 1.0
      framework: [vllm]
      label: [trade]
      min_resource: {cpu: 4, mem: 16g, cuda.shares: 1}
"""
SHORT = "models: [{name: m, model_path: /models, service: {start_command: serve, port: 8000}}]\n"


def write(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(text) if isinstance(text, str) else (folder / NAME).write_bytes(text)
    return folder


def launched(folder, text, port=8123, **settings):
    config = ServeConfig(variant="custom", **settings)
    custom.check_folder(config, write(folder, text))
    return custom.launch(config, process.place(folder, port))


def problem(folder, text):
    with pytest.raises(ServingError) as error:
        launched(folder, text)
    return str(error.value).replace(str(folder / NAME), NAME)


def test_the_definition_of_the_docs_is_one(tmp_path):
    text = (Path(__file__).parents[2] / "docs/serving.md").read_text()
    (block,) = re.findall(r"```yaml\n(models:\n.*?)```", text, re.DOTALL)
    (tmp_path / NAME).write_text(block)
    found = read_definition(tmp_path / NAME)
    assert found.service.start_command == "transformers serve {model_path} --port {port}"
    assert found.service.health_check == HealthCheck(enable=True, path="/health")


def test_the_whole_format_is_read(tmp_path):
    launch = launched(tmp_path, ARTICLE)
    start = f"vllm serve {tmp_path} --port 8000"
    assert launch.command is not None
    assert launch.command[:2] == ["/bin/sh", "-c"]
    assert launch.command[2].splitlines()[-1] == f"exec /bin/bash -c '{start}'"
    assert (launch.port, launch.ready_path, launch.ready_status) == (8000, "/health", 204)
    assert (launch.ready_timeout_s, launch.startup_budget_s) == (3.5, 900)
    assert (launch.probe_interval_s, launch.failure_threshold) == (5, 7)
    assert (launch.model, launch.identity) == ("", "none")
    assert launch.env["BACKEND_MODEL_NAME"] == "gemma-2-2b-it-trade"
    assert launch.env["BACKEND_MODEL_PATH"] == str(tmp_path)


def test_every_key_of_the_format_is_known():
    """Backend.AI 26.8, src/ai/backend/common/config.py."""
    fields = {part.__name__: " ".join(part.model_fields) for part in (Model, Service, HealthCheck, Metadata)}
    assert fields == {
        "Model": "name model_path service metadata",
        "Service": "pre_start_actions start_command shell port health_check",
        "HealthCheck": "enable interval path max_retries max_wait_time expected_status_code initial_delay",
        "Metadata": "author title version created last_modified description task category architecture framework "
        "label license min_resource",
    }
    assert list(ACTIONS) == ["write_file", "write_tempfile", "run_command", "mkdir", "log"]


def test_what_is_left_out_has_the_defaults_of_the_format(tmp_path):
    launch = launched(tmp_path, SHORT)
    assert launch.command == ["/bin/bash", "-c", "serve"]
    assert (launch.ready_path, launch.port) == ("", 8000)
    assert launched(tmp_path, SHORT.replace(", port: 8000", "")).port == 8080
    health = SHORT.replace("port: 8000", "port: 8000, health_check: {enable: true}")
    checked = launched(tmp_path, health)
    assert (checked.ready_path, checked.ready_status, checked.ready_timeout_s) == ("/health", 200, 15)
    assert (checked.startup_budget_s, checked.probe_interval_s, checked.failure_threshold) == (1800, 10, 10)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("[serve, '{model_path}', '{host}:{port}', '{other}']", ["serve", "{d}", "127.0.0.1:8123", "{other}"]),
        ("'serve --port {port}', shell: null", ["serve", "--port", "8123"]),
        ("'serve --port $PORT'", ["/bin/bash", "-c", "serve --port $PORT"]),
        ("'serve --port ${{PORT:-8000}}', shell: /bin/sh", ["/bin/sh", "-c", "serve --port ${{PORT:-8000}}"]),
    ],
)
def test_a_command_is_a_text_for_a_shell_or_a_list_and_takes_a_free_port_if_it_can(tmp_path, command, expected):
    launch = launched(tmp_path, SHORT.replace("start_command: serve", f"start_command: {command}".replace("{{", "{")
                                              .replace("}}", "}")))  # fmt: skip
    assert launch.command == [word.replace("{d}", str(tmp_path)).replace("{{", "{").replace("}}", "}")
                              for word in expected]  # fmt: skip
    assert (launch.port, launch.env["PORT"]) == (8123, "8123")


@pytest.mark.parametrize(("model_path", "below"), [("/models", ""), ("/models/gguf", "/gguf"), ("sub", "/sub")])
def test_the_mount_of_the_format_stands_for_the_folder(tmp_path, model_path, below):
    text = SHORT.replace("/models", model_path).replace("serve,", "'x {model_path}',")
    assert launched(tmp_path, text).command == ["/bin/bash", "-c", f"x {tmp_path}{below}"]
    (tmp_path / NAME).write_text(text)
    inside = custom.launch(ServeConfig(variant="custom"), Place(tmp_path, "/srv/m", "0.0.0.0", 80, container=True))
    assert inside.env["BACKEND_MODEL_PATH"] == f"/srv/m{below}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is no model definition: that begins with `models:`"),
        ("just a text", "this is no model definition: that begins with `models:`"),
        ("models: []", r"models list should have at least 1 item"),
        ("models:\n\t- name: m\n", "line 2: a tab stands where YAML wants spaces; indent with spaces."),
        ("models:\n  - name: m\n    model_path: /m\n\n    service: {port: 1}", r"line 5: models\[0\]\.service\.port"),
        ("models:\n  - name: m\n    model_path: /m\n", r"line 2: models\[0\]\.service is missing\."),
        (ARTICLE.replace("interval:", "intervall:"), r"line 14: models\[0\]\.service\.health_check\.intervall is no"),
        (ARTICLE.replace("port: 8000", "port: many", 1).replace("      port: 8000", "      port: many"),
         r"line 10: models\[0\]\.service\.port input should be a valid integer"),
        (ARTICLE.replace('"vllm serve {model_path} --port 8000"', "{a: b}"), r"line 8: .*service\.start_command"),
        (ARTICLE.replace("path: /health", "path: health"), r"line 13: models\[0\]\.service\.health_check\.path"),
        (ARTICLE.replace("/health", "/health").replace("initial_delay: 900", "initial_delay: -1"), r"initial_delay"),
        (ARTICLE.replace("action: mkdir", "action: rmdir"), r"line 6: .*pre_start_actions.0.\.action"),
        (ARTICLE.replace("{path: /tmp/a}", "{folder: /tmp/a}"), r"actions.0. .mkdir. args\.path: field required"),
        (SHORT.replace("name: m,", "name: m, name: n,"), "line 1: the key 'name' is given twice"),
        (SHORT + "---\n" + SHORT, "line 2: but found another document"),
        ("models: &a [1]\nmore: *a\n", "line 1: anchors and aliases"),
        ("models: !!python/object/apply:os.system ['echo hi']", "line 1: could not determine a constructor"),
        ("models: " + "[" * 500, "line 1: it is nested too deeply"),
        ("{" * 5000, "nested too deeply"),
        ("models: [\n  {name: m\n", "line 3: expected"),
        ("#" * (MAX_BYTES + 1), f"is larger than {MAX_BYTES} bytes"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"models: \x00", r"character 9 \(U\+0000\) is none"),
        (SHORT.replace("[{", "[{name: a, model_path: b, service: {port: 80}}, {"), "more than one model"),
        (SHORT.replace("start_command: serve, ", ""), "start_command is empty; say what to run"),
        (SHORT.replace("/models", "/models/../../etc"), "leaves the model folder"),
        (SHORT.replace("port: 8000", "port: 8000, shell: /bin/nosuchshell"), "no program '/bin/nosuchshell'"),
        ("? [a, b]\n: c\n", "line 1: a key must be a word"),
        ("models: 2020-13-45", "line 1: month must be in 1..12"),
    ],
)  # fmt: skip
def test_a_bad_definition_is_told_with_file_line_and_field(tmp_path, text, message):
    told = problem(tmp_path, text)
    assert re.search(message, told), told
    assert NAME in told or "model_path" in told
    assert "Traceback" not in told


def test_a_yaml_bomb_costs_nothing(tmp_path):
    lines = ['a: &a ["lol","lol","lol","lol","lol","lol","lol","lol","lol"]']
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]")
    began = time.monotonic()
    assert "line 1: anchors and aliases (& and *) are not allowed" in problem(tmp_path, "\n".join(lines))
    assert time.monotonic() - began < 1


def test_no_definition_is_told_with_an_example_that_works(tmp_path):
    with pytest.raises(ServingError, match=r"model-definition\.yaml: No such file") as error:
        read_definition(tmp_path / NAME)
    example = str(error.value).partition("as:\n")[2]
    assert launched(tmp_path / "m", example).command == [
        "/bin/bash",
        "-c",
        f"transformers serve {tmp_path / 'm'} --port 8123",
    ]


def test_a_path_that_a_shell_takes_apart_is_refused_for_a_shell_only(tmp_path):
    folder = tmp_path / "my model; rm"
    with pytest.raises(ServingError, match=r"start_command: the model_path .* takes apart"):
        launched(folder, SHORT)
    listed = SHORT.replace("start_command: serve", "start_command: [serve, '{model_path}']")
    assert launched(folder, listed).command == ["serve", str(folder)]
    assert launched(tmp_path / "모델", SHORT).command == ["/bin/bash", "-c", "serve"]


def test_actions_really_do_what_they_say(tmp_path):
    definition = f"""
models:
  - name: m
    model_path: /models
    service:
      pre_start_actions:
        - {{action: mkdir, args: {{path: '{tmp_path}/new/deep'}}}}
        - action: write_file
          args:
            filename: '{tmp_path}/new/a file'
            mode: "600"
            body: ["it's \\"$HOME\\" `id` {{model_path}}", "", '{{"json": {{"a": 1}}}}']
        - action: write_file
          args: {{filename: '{tmp_path}/new/a file', append: true, body: "last\\n"}}
        - {{action: write_tempfile, args: {{body: [one]}}}}
        - {{action: run_command, args: {{command: [cp, '{tmp_path}/new/a file', '{tmp_path}/new/deep/b']}}}}
        - {{action: log, args: {{message: "ready; don't worry"}}}}
      start_command: [echo, started, '{{model_path}}']
      port: 8000
"""
    launch = launched(tmp_path / "m", definition)
    done = subprocess.run(launch.command, capture_output=True, text=True, check=True)
    written = (tmp_path / "new/a file").read_text()
    assert written == f'it\'s "$HOME" `id` {tmp_path / "m"}\n\n{{"json": {{"a": 1}}}}\nlast\n'
    assert (tmp_path / "new/deep/b").read_text() == written
    temporary, message, started = done.stdout.splitlines()
    assert (message, started) == ("ready; don't worry", f"started {tmp_path / 'm'}")
    with open(temporary.removeprefix("wrote ")) as stream:
        assert stream.read() == "one\n"


def test_an_action_that_fails_ends_the_start_and_is_named(tmp_path):
    text = SHORT.replace(
        "start_command: serve",
        "pre_start_actions: [{action: log, args: {message: one}}, "
        f"{{action: run_command, args: {{command: [{sys.executable}, -c, 'import sys; sys.exit(3)']}}}}], "
        "start_command: [echo, started]",
    )
    launch = launched(tmp_path, text)
    done = subprocess.run(launch.command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "one\n")
    assert done.stderr == "pre_start action 2 (run_command) failed\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SHORT.replace("8000", "!!int ''"), "line 1: '' is no int."),
        (SHORT.replace("8000", "!!bool x"), "line 1: 'x' is no bool."),
        ("- models", "line 1: this is no model definition: that begins with `models:`."),
    ],
)
def test_what_no_value_can_be_and_a_list_are_told_in_words(tmp_path, text, why):
    with pytest.raises(ServingError) as error:
        read_definition(write(tmp_path, text) / NAME)
    assert str(error.value) == f"{tmp_path / NAME}, {why}"


def test_a_quotation_without_an_end_is_told_in_words(tmp_path):
    text = SHORT.replace("start_command: serve", "start_command: serve 'it, shell: null")
    with pytest.raises(ServingError, match=r"start_command: \"serve 'it\": No closing quotation\. Close it\."):
        launched(tmp_path, text)
