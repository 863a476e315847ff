import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.stages.job_variables import job_variables
from flows.stages.resources import (
    SIZE,
    StageResources,
    machine_problems,
    plain_variables,
    problems,
    secret_blocks,
    size_bytes,
)


@pytest.mark.parametrize(
    ("words", "size"),
    [("16g", 2**34), ("16GiB", 2**34), ("16Gi", 2**34), ("1.5 GB", 3 * 2**29), ("512m", 2**29), ("", 0)],
)
def test_sizes_are_read_as_people_write_them(words, size):
    assert size_bytes(StageResources(memory=words).memory) == size


@pytest.mark.parametrize("words", ["1.5", "-16g", "16x", "g", "16 g b", "1e3g", "۱۶g"])
def test_what_is_no_size_is_refused_with_its_field(words):
    with pytest.raises(ValidationError) as error:
        StageResources(memory=words)
    assert error.value.errors()[0]["loc"] == ("memory",)


@given(st.text(max_size=12))
def test_whatever_passes_the_form_can_be_read(words):
    if re.fullmatch(SIZE, words):
        assert size_bytes(words) >= 0


@pytest.mark.parametrize("field", ["cpu", "gpus"])
def test_less_than_nothing_is_refused(field):
    with pytest.raises(ValidationError):
        StageResources(**{field: -1})


def test_what_can_work_nowhere_is_told_all_at_once():
    wanted = StageResources(gpus=1.7, image="x", env=["A=1", "A=2", "no equals"])
    assert problems(wanted, "resources.finetune") == [
        "resources.finetune.gpus: 1.7 is neither a share of one card (below 1) nor whole ones.",
        "resources.finetune.image: only a work pool of containers can use an image; name one in work_pool.",
        "resources.finetune.env: A stands there twice.",
        "resources.finetune.env: 'no equals' is not NAME=value.",
    ]
    assert problems(StageResources(gpu_memory="8g"), "r") == ["r.gpu_memory: 8g of no GPU; say in gpus how many."]


def test_a_size_of_nothing_is_refused():
    # An engine takes 0 for no limit at all.
    assert problems(StageResources(memory="0g", shm="0.0m"), "resources.finetune") == [
        "resources.finetune.memory: 0g is nothing; leave it empty for as much as there is.",
        "resources.finetune.shm: 0.0m is nothing; leave it empty for as much as there is.",
    ]


def test_more_than_the_machine_has_is_told():
    cpu, memory = machine_problems(StageResources(cpu=4096, memory="900t"), "resources.prepare")
    assert cpu.startswith("resources.prepare.cpu: 4096 cores asked for, this machine has ")
    assert memory.startswith("resources.prepare.memory: 900t asked for, this machine has ")


def test_secrets_and_plain_variables_are_told_apart():
    lines = ["HF_TOKEN=secret:hub", "NCCL_DEBUG=INFO", "EMPTY=", "TWO=a=b"]
    assert secret_blocks(lines) == {"HF_TOKEN": "hub"}
    assert plain_variables(lines) == {"NCCL_DEBUG": "INFO", "EMPTY": "", "TWO": "a=b"}


def test_job_variables_say_only_what_was_asked_for():
    wanted = StageResources(cpu=2, memory="8g", gpus=1.0, shm="1g", image="repo/train:1")
    assert job_variables("process", wanted) == {}
    assert job_variables("docker", wanted) == {
        "image": "repo/train:1",
        "mem_limit": f"{2**33}b",
        "nano_cpus": 2_000_000_000,
        "shm_size": 2**30,
        "device_requests": [{"Driver": "nvidia", "Count": 1, "Capabilities": [["gpu"]]}],
    }
    kubernetes = {"image": "repo/train:1", "cpu": "2", "memory": str(2**33), "shm": str(2**30), "gpus": 1}
    assert job_variables("kubernetes", wanted) == kubernetes
    assert job_variables("docker", StageResources(gpus=0.5))["device_requests"][0]["Count"] == 1
    assert job_variables("docker", StageResources()) == {}
    assert job_variables("kubernetes", StageResources()) == {}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"work_pool": "../gpu"}, "here.work_pool: '../gpu' names no work pool: no name has '/' in it."),
        ({"env": ["A=a\0b"]}, "here.env: A has a zero byte, or more than 100,000 bytes."),
        ({"env": ["A=" + "a" * 100_000]}, "here.env: A has a zero byte, or more than 100,000 bytes."),
    ],
)
def test_what_no_pool_and_no_process_can_take_is_told_before(asked, words):
    assert problems(StageResources(**asked), "here") == [words]
