"""How many pods of an endpoint serve."""

from flows.serving.runtimes import kubernetes
from flows.serving.runtimes.pod_diagnosis import is_ready


def ready_pods(record):
    """Those that are ready and not about to be deleted."""
    return sum(is_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in kubernetes.pods(record))
