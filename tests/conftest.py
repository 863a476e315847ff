import os

import pytest
from hypothesis import settings

pytest_plugins = ["pytester", "tests.faults.report"]

# No test may reach for a network, and threads on shared cores only stand in each other's way.
settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")
os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")


# With `-n 2`, tests that share a server, an engine or much memory stay in one process. The rest goes anywhere.
TOGETHER = {
    "tests/end_to_end/": "prefect",
    "tests/serving/test_docker.py": "engines",
    "tests/serving/test_vllm.py": "engines",
    "tests/serving/test_watch_containers.py": "engines",
    "tests/serving/test_watch_vllm.py": "engines",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for path, group in TOGETHER.items():
            if item.nodeid.startswith(path):
                item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Folders of the tiny random models, by family."""
    from flows.base_models.resolve import BaseModelConfig, resolve

    folder = tmp_path_factory.mktemp("models")
    return {name: resolve(BaseModelConfig(name=f"tiny:{name}"), folder).path for name in ("gemma-2", "llama-3")}
