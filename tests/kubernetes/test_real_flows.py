"""The flows about endpoints, as Prefect runs them, over a real API server."""

import pytest
from prefect.testing.utilities import prefect_test_harness
from prefect.variables import Variable

from flows.roll_back import roll_back
from flows.scale_endpoint import scale_endpoint
from flows.serve_variant import serve_variant
from flows.serving import records
from flows.stages.model_source import ModelSource
from flows.stop_endpoint import stop_endpoint
from flows.watch_endpoints import watch_endpoints
from tests.kubernetes.control_plane import wait_for
from tests.kubernetes.ready import ready_pods
from tests.kubernetes.test_real_cluster import left
from tests.serving import folders


@pytest.fixture(scope="module")
def _prefect():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.usefixtures("_prefect")
def test_a_model_is_served_scaled_moved_rolled_back_and_stopped_by_flows(plane, kubelet, small, endpoints):
    store, model = str(endpoints.parent), ModelSource(folder=str(folders.model(endpoints.parent / "model")))
    address = "http://small.models.svc:8000/v1"
    options = {"volume": "host-path"}

    def message(flow, **parameters):
        state = flow(store=store, return_state=True, **parameters)
        return state.type.value, state.message

    assert message(serve_variant, model=model, serve=small(kubernetes=options))[1].startswith(
        f"small is HEALTHY at {address} (revision 1, came up in "
    )
    assert Variable.get("endpoint_small")["url"] == address
    ended, said = message(scale_endpoint, name="small", replicas=2)
    assert (ended, said) == ("COMPLETED", "small: 2 replicas from now on; they come and go while it serves.")
    wait_for(lambda: ready_pods(records.load(endpoints, "small").process) == 2, [])
    assert message(watch_endpoints)[0] == "COMPLETED"

    ended, said = message(serve_variant, model=model, serve=small("--wrong", kubernetes=options))
    assert ended == "FAILED"
    assert "Cause: bad option." in said
    assert "error: unrecognized arguments: --wrong" in said
    moved = small(kubernetes=options | {"image": "small:2"})
    assert f"small is HEALTHY at {address} (revision 2" in message(serve_variant, model=model, serve=moved)[1]
    assert f"HEALTHY at {address}, revision 3." in message(roll_back, name="small")[1]
    wait_for(lambda: left(plane) == {"deployments": 1, "pods": 2, "services": 2}, [])
    assert message(stop_endpoint, name="small")[0] == "COMPLETED"
    assert left(plane) == {"deployments": 0, "pods": 0, "services": 0}
