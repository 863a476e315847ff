import os

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["pytester", "tests.faults.report"]

# No test may reach for a network, and threads on shared cores only stand in each other's way.
settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")
os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")


# With `-n`, tests that share a server or much memory stay in one process; else those of a file do.
TOGETHER = {
    "tests/end_to_end/test_promotion.py": "another prefect",
    "tests/end_to_end/test_generate.py": "another prefect",
    "tests/end_to_end/test_tokens.py": "another prefect",
    "tests/end_to_end/test_kills.py": "a prefect to be killed",
    "tests/end_to_end/": "prefect",
    "tests/serving/test_docker.py": "engines",
    "tests/serving/test_vllm.py": "engines",
    "tests/serving/test_watch_containers.py": "engines",
    "tests/serving/test_watch_vllm.py": "engines",
}


class Together(LoadScopeScheduling):
    """Hands out tests by what they share. (Groups by mark, `xdist_group`, are lost with pytest 9.2.)"""

    def _split_scope(self, nodeid):
        return next((group for path, group in TOGETHER.items() if nodeid.startswith(path)), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config, log):
    return Together(config, log)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Folders of the tiny random models, by family."""
    from flows.base_models.resolve import BaseModelConfig, resolve

    folder = tmp_path_factory.mktemp("models")
    return {name: resolve(BaseModelConfig(name=f"tiny:{name}"), folder).path for name in ("gemma-2", "llama-3")}
