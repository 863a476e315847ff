import os

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["pytester", "tests.faults.report"]

# No test may reach for a network, and threads on shared cores only stand in each other's way.
settings.register_profile("any machine", deadline=None)  # a busy one takes its time
settings.load_profile("any machine")
os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")


# In several processes (`-n`), tests that share a server or much memory stay in one; else those of a file do.
TOGETHER = {
    "tests/end_to_end/test_bucket.py": "a third prefect",
    "tests/end_to_end/test_docker_pool.py": "a third prefect",
    "tests/end_to_end/test_placement.py": "a third prefect",
    "tests/end_to_end/test_watch_data.py": "a third prefect",
    "tests/end_to_end/test_generate.py": "another prefect",
    "tests/end_to_end/test_notices.py": "another prefect",
    "tests/end_to_end/test_own_pipeline.py": "another prefect",
    "tests/end_to_end/test_prefect_down.py": "another prefect",
    "tests/end_to_end/test_promotion.py": "another prefect",
    "tests/end_to_end/test_tokens.py": "another prefect",
    "tests/end_to_end/test_kills.py": "a prefect to be killed",
    "tests/end_to_end/": "prefect",
    "tests/serving/test_docker.py": "engines",
    "tests/serving/test_vllm.py": "engines",
    "tests/serving/test_watch_containers.py": "engines",
    "tests/serving/test_watch_vllm.py": "engines",
    "tests/stages/test_teams.py": "teams",
}
LONGEST_FIRST = ["a third prefect", "another prefect", "prefect", "a prefect to be killed", "engines", "teams"]


def group(nodeid):
    """With which tests a test stays."""
    return next((name for path, name in TOGETHER.items() if nodeid.startswith(path)), nodeid.partition("::")[0])


class Together(LoadScopeScheduling):
    """Hands out tests by what they share. (Groups by mark, `xdist_group`, are lost with pytest 9.2.)"""

    def _split_scope(self, nodeid):
        return group(nodeid)


def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # it would go by the number of tests
    return Together(config, log)


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):  # of several processes
        order = {name: number for number, name in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: order.get(group(item.nodeid), len(order)))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Folders of the tiny random models, by family."""
    from flows.base_models.resolve import BaseModelConfig, resolve

    folder = tmp_path_factory.mktemp("models")
    return {name: resolve(BaseModelConfig(name=f"tiny:{name}"), folder).path for name in ("gemma-2", "llama-3")}
