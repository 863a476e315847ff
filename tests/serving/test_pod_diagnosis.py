"""What a cluster says of its pods, as it says it, and what is made of that."""

import pytest

from flows.serving.runtimes.pod_diagnosis import Diagnosis, diagnose, exit_code

SERVED_BEFORE = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}


def owner(*conditions, **status):
    return {"status": {"conditions": list(conditions), **status}}


def pod(state=None, last=None, restarts=0, ready="False", **more):
    container = {"image": "a:1", "state": state or {}, "lastState": last or {}, "restartCount": restarts}
    conditions = more.pop("conditions", [{"type": "Ready", "status": ready}])
    return {"metadata": {}, "status": {"conditions": conditions, "containerStatuses": [container], **more}}


def ended(code, reason="Error", at="2026-01-01T00:00:00Z"):
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at}}


def waiting(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


CRASHED = pod({"running": {}}, ended(1), restarts=1)


@pytest.mark.parametrize(
    ("of", "pods", "reason", "lasting"),
    [
        (owner(), [pod(waiting("ErrImagePull", "timeout"))], "ErrImagePull", False),
        (owner(), [pod(waiting("ImagePullBackOff"))], "ImagePullBackOff", True),
        (owner(), [pod(waiting("CreateContainerConfigError"))], "CreateContainerConfigError", True),
        (owner(), [pod(waiting("CrashLoopBackOff"), ended(1), 2)], "CrashLoopBackOff", True),
        (owner(), [pod(waiting("CrashLoopBackOff"), ended(137, "OOMKilled"), 2)], "OOMKilled", True),
        (owner(), [pod(ended(1))], "Error", False),
        (owner(), [CRASHED], "Error", True),
        (owner(SERVED_BEFORE), [CRASHED], "Error", False),
        (owner(), [pod(phase="Failed", reason="Evicted", message="low on disk")], "Evicted", False),
        (owner({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}), [], "FailedCreate", True),
        (
            owner({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}),
            [pod({"running": {}})],
            "ProgressDeadlineExceeded",
            True,
        ),
        (owner(state="Failed"), [], "Failed", True),
        (owner({"type": "Ready", "status": "False", "reason": "Slow", "message": "loading"}), [], "Slow", False),
    ],
)
def test_a_diagnosis_and_whether_it_lasts(of, pods, reason, lasting):
    found = diagnose(of, pods)
    assert isinstance(found, Diagnosis)
    assert (found.reason, found.lasting) == (reason, lasting)
    assert found.line.startswith(f"kubernetes: {reason}: ")
    assert len(found.words) > 3


@pytest.mark.parametrize(
    ("of", "pods"),
    [
        (owner(), []),
        ({}, [{"metadata": {}}]),
        (owner(), [pod({"running": {}})]),
        (owner(), [pod(waiting("ContainerCreating"))]),
        (owner(), [pod(waiting("CrashLoopBackOff"), ended(1), 9), pod({"running": {}}, ready="True")]),
        (owner(), [pod(ended(1)) | {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}]),
    ],
)
def test_nothing_is_wrong_while_it_loads_or_one_pod_serves(of, pods):
    assert diagnose(of, pods) is None


def test_the_exit_code_is_the_latest_one_and_137_when_out_of_memory():
    first, second = pod(ended(1, at="2026-01-01T00:00:00Z")), pod({}, ended(2, at="2026-01-02T00:00:00Z"))
    assert exit_code([second, first]) == 2
    assert exit_code([pod(ended(0, "OOMKilled"))]) == 137
    assert exit_code([pod({"running": {}})]) is None
