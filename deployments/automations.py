"""What Prefect does by itself: start a run again that died, roll an endpoint back, tell somebody of trouble.

    python -m deployments.automations [--notify TYPE/NAME] [--silent-after-s 300] [--dead-after-s 150]
        [--pending-after-s 600] [--quiet-s 45]

Applied as often as one likes: what is there is brought up to date, and stays off if a person has switched it off.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect.automations import (
    AutomationCore,
    ChangeFlowRunState,
    EventTrigger,
    Posture,
    RunDeployment,
    SendNotification,
)
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from flows.errors import ConfigError, FinetuneError

VARIABLE = "FINETUNE_NOTIFY"
ENDPOINTS = "prefect-finetune.endpoint.*"
WATCHERS = "prefect-finetune.watcher.*"
ROLL_BACK = "roll-back/local"
SILENT_AFTER_S = 300.0
DEAD_AFTER_S = 150.0
PENDING_AFTER_S = 600.0
QUIET_S = 45.0
PIPELINE_TAG, STAGE_TAG = "finetune", "stage"  # of the deployments in prefect.yaml
ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Suspended", "Paused")
STARTS = ("Pending", "Submitting", "InfrastructurePending")
WAITS = (*STARTS, "Scheduled", "AwaitingRetry", "Late", "Retrying", "AwaitingConcurrencySlot")
HEARTBEAT = "prefect.flow-run.heartbeat"
HOW_TO = f"""Nobody is told when an endpoint fails: {VARIABLE} names no notification block. In the Prefect UI, under
Blocks, make one that can notify (Slack Webhook, Microsoft Teams Webhook, Custom Webhook ...), then apply this again
with its type and name: {VARIABLE}=slack-webhook/endpoints make deploy"""


def apply(
    notify: str = "",
    silent_after_s: float = SILENT_AFTER_S,
    dead_after_s: float = DEAD_AFTER_S,
    pending_after_s: float = PENDING_AFTER_S,
    quiet_s: float = QUIET_S,
) -> list[str]:
    """Create or bring up to date the automations of this project.

    Args:
        notify: the notification block, `TYPE/NAME` as `slack-webhook/endpoints`; empty: only the roll-back is applied,
            and automations that notify are left as they are.
        silent_after_s: seconds without a pass after which the watcher counts as dead, at least 10.
        dead_after_s: seconds without a heartbeat (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, 30 s at least) after which a run
            counts as dead: three heartbeats, and more than an outage of the server that runs should outlive.
        pending_after_s: seconds after which a run that a worker has taken and not begun counts as dead: more than a
            container's image takes to come.
        quiet_s: seconds for which a pipeline is Crashed before it is started again, 15 at least: a worker reports a
            death a second time after some 11 s.

    Returns:
        A line for each.

    Raises:
        ConfigError: there is no such block, it cannot notify, or the roll-back is not deployed.
    """
    with get_client(sync_client=True) as client:
        dead = [*burying(dead_after_s), *burying_what_never_began(pending_after_s)]
        wanted = [*dead, starting_again(quiet_s), rolling_back(_deployment(client, ROLL_BACK))]
        if notify:
            block = _block(client, notify)
            wanted += [telling(block), missing_the_watcher(block, silent_after_s)]
        lines = [_apply_one(client, one) for one in wanted]
    return lines if notify else [*lines, HOW_TO]


def burying(dead_after_s: float) -> list[AutomationCore]:
    """Call runs Crashed whose heartbeats stopped, as on a machine that was lost; one for pipelines, one for stages.

    A run whose worker lives is called so by that, at once.
    """
    crashed = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message="Its heartbeats have stopped.")
    return [
        AutomationCore(
            name=f"prefect-finetune: bury dead runs ({tag})",
            description=f"A run that has not ended and gave no heartbeat for {dead_after_s:g} s is Crashed.",
            trigger=_missing({HEARTBEAT}, {HEARTBEAT, *_events(*ENDS, *WAITS)}, tag, dead_after_s),
            actions=[crashed],
        )
        for tag in (PIPELINE_TAG, STAGE_TAG)
    ]


def burying_what_never_began(pending_after_s: float) -> list[AutomationCore]:
    """Call runs Crashed that a worker took and that never ran: it died in between, and no other worker takes them."""
    words = "A worker took it and it has not begun."
    return [
        AutomationCore(
            name=f"prefect-finetune: bury runs that never began ({tag})",
            description=f"A run that a worker took and that has not begun {pending_after_s:g} s later is Crashed.",
            trigger=_missing(_events(*STARTS), {HEARTBEAT, *_events("Running", *ENDS, *WAITS)}, tag, pending_after_s),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=words)],
        )
        for tag in (PIPELINE_TAG, STAGE_TAG)
    ]


def _missing(after: set[str], expect: set[str], tag: str, within_s: float) -> EventTrigger:
    """Fires for a run with that tag of which none of the expected is seen for so long after one of the former."""
    return EventTrigger(
        after=after,
        expect=expect,
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=within_s),
    )


def starting_again(quiet_s: float = QUIET_S) -> AutomationCore:
    """Start a pipeline again that has crashed and stayed so; the run itself gives up after some crashes.

    Not at once: a worker reports a death a second time some seconds later, and would crash the new start. Stages are
    started again by their pipeline.
    """
    others = [end for end in ENDS if end != "Crashed"]
    again = ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message="It crashed.", force=True)
    return AutomationCore(
        name="prefect-finetune: start crashed runs again",
        description=f"A pipeline that crashed and has not moved for {quiet_s:g} s is scheduled again, as the same run.",
        trigger=_missing(_events("Crashed"), {HEARTBEAT, *_events("Running", *others, *WAITS)}, PIPELINE_TAG, quiet_s),
        actions=[again],
    )


def _events(*states: str) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def rolling_back(deployment: UUID) -> AutomationCore:
    """Rolls back an endpoint that was given up, if its settings ask for that (`serve.watch`)."""
    number = {"__prefect_kind": "json", "value": _of_event("revision")}  # a template alone renders to a text
    parameters = {"name": _of_event("name"), "store": _of_event("store"), "instead_of": number}
    return AutomationCore(
        name="prefect-finetune: roll back what was given up",
        description="An endpoint that failed five restarts goes back to its revision before, where "
        "serve.watch.roll_back_when_given_up is on.",
        trigger=EventTrigger(
            expect={"endpoint.failed"},
            match={"prefect.resource.id": ENDPOINTS, "prefect-finetune.roll-back": "true"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[RunDeployment(source="selected", deployment_id=deployment, parameters=parameters)],
    )


def _of_event(part: str) -> dict[str, str]:
    return {"__prefect_kind": "jinja", "template": f"{{{{ event.payload.{part} }}}}"}


def telling(block: UUID) -> AutomationCore:
    """Tells of endpoints that became unhealthy, failed or were rolled back."""
    body = (
        "{{ event.payload.why }}\nRevision {{ event.payload.revision }}, {{ event.payload.url }}, "
        "{{ event.occurred }}. All endpoints: {{ event.payload.page }}"
    )
    return AutomationCore(
        name="prefect-finetune: tell of endpoints in trouble",
        description="Endpoints that became UNHEALTHY, FAILED, or were rolled back.",
        trigger=EventTrigger(
            expect={"endpoint.unhealthy", "endpoint.failed", "endpoint.rolled-back"},
            match={"prefect.resource.id": ENDPOINTS},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="Endpoint {{ event.payload.name }}: {{ event.payload.what }}",
                body=body,
            )
        ],
    )


def missing_the_watcher(block: UUID, silent_after_s: float) -> AutomationCore:
    """Tells, once, when a watcher that has been seen is not seen any more."""
    minutes = f"{silent_after_s / 60:g}"
    return AutomationCore(
        name="prefect-finetune: miss the watcher",
        description=f"No pass of watch-endpoints for {minutes} minutes, after at least one.",
        trigger=EventTrigger(
            after={"endpoint.watched"},
            expect={"endpoint.watched"},
            match={"prefect.resource.id": WATCHERS},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silent_after_s),
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="Nobody watches the endpoints",
                body=f"No pass of watch-endpoints was seen for {minutes} minutes: failed servers are not started "
                "again, and what their page shows is old. Is its schedule on, and does its worker run?",
            )
        ],
    )


def _apply_one(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return f"created: {wanted.name}"
    there = found[0]
    same = all(getattr(there, part) == getattr(wanted, part) for part in ("description", "trigger", "actions"))
    if not same:
        client.update_automation(there.id, wanted.model_copy(update={"enabled": there.enabled}))
    state = "" if there.enabled else " (switched off)"
    return f"{'unchanged' if same else 'brought up to date'}: {wanted.name}{state}"


def _deployment(client: SyncPrefectClient, name: str) -> UUID:
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound:
        raise ConfigError(f"There is no deployment {name}: apply prefect.yaml first (make deploy).") from None


def _block(client: SyncPrefectClient, notify: str) -> UUID:
    kind, _, name = notify.partition("/")
    try:
        found = client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise ConfigError(
            f"{VARIABLE}: there is no block {notify!r}. It is TYPE/NAME, as `prefect block ls` shows it."
        ) from None
    able = found.block_schema.capabilities if found.block_schema else []
    if "notify" not in able:
        raise ConfigError(f"{VARIABLE}: the block {notify!r} cannot notify; take a webhook, Slack, Teams, ... block.")
    return found.id


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deployments.automations", description=__doc__)
    parser.add_argument("--notify", default=os.environ.get(VARIABLE, ""), metavar="TYPE/NAME")
    parser.add_argument("--silent-after-s", type=float, default=SILENT_AFTER_S)
    parser.add_argument("--dead-after-s", type=float, default=DEAD_AFTER_S)
    parser.add_argument("--pending-after-s", type=float, default=PENDING_AFTER_S)
    parser.add_argument("--quiet-s", type=float, default=QUIET_S)
    options = parser.parse_args(arguments)
    try:
        print("\n".join(apply(**vars(options))))
    except FinetuneError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
