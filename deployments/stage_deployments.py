"""`run-stage/<pool>` for every work pool of the server, so that a run's resources can name any of them.

A part of `make deploy`; alone, after a new pool: `python -m deployments.stage_deployments`.
"""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate

from flows.stages.placement import FLOW, VERSION

MODEL = f"{FLOW}/local"  # the one of prefect.yaml
NO_CODE = {"docker", "kubernetes"}  # their images hold the project, at the working folder of the image


def apply() -> list[str]:
    """Create or bring up to date the deployment of each pool, with the project's version in it.

    Returns:
        A line for each pool but that of prefect.yaml.
    """
    lines = []
    with get_client(sync_client=True) as client:
        like = client.read_deployment_by_name(MODEL)
        client.update_deployment(like.id, DeploymentUpdate(version=VERSION))
        for pool in client.read_work_pools():
            if pool.name in ("local", like.work_pool_name) or pool.type == "prefect-agent":
                continue
            client.create_deployment(
                flow_id=like.flow_id,
                name=pool.name,
                version=VERSION,
                work_pool_name=pool.name,
                entrypoint=like.entrypoint,
                path="." if pool.type in NO_CODE else like.path,
                pull_steps=[] if pool.type in NO_CODE else like.pull_steps,
                description=like.description,
                tags=like.tags,
                parameter_openapi_schema=like.parameter_openapi_schema,
                enforce_parameter_schema=like.enforce_parameter_schema,
            )
            lines.append(f"applied: {FLOW}/{pool.name}")
    return lines


if __name__ == "__main__":
    print("\n".join(apply()))
