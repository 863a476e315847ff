"""A name moves to another model as one transaction: what served before goes on serving until `commit`.

    with Promotion(config, model_dir, endpoints_dir, maker) as promotion:
        promotion.start(progress)  # beside what serves now; returns when it has answered
        ...                        # checks of promotion.candidate against promotion.current
        promotion.commit()

Left in any other way (an error, a cancelled run), the candidate is ended and forgotten. Who is killed in between leaves
the record `NAME.next`: the next start, stop or look of the watcher ends what it names.
"""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from flows.ending import to_the_end
from flows.errors import ServingError
from flows.progress import Progress, silent
from flows.serving import probe, records, replicas, revisions, start
from flows.serving.config import ServeConfig
from flows.serving.endpoint import Endpoint
from flows.serving.front import following, lifecycle, traffic
from flows.serving.front.record import FrontRecord
from flows.serving.registry import RUNTIMES
from flows.serving.revisions import Revision
from flows.serving.state import State
from flows.serving.stop import end, end_behind, end_leftovers
from flows.serving.variants.launch import Launch
from flows.store.paths import folder

# A run that is cancelled has half a minute for all of its end.
ABANDON_WAIT_S = 10.0
ABANDON_DRAIN_S = 5.0
LAST_LOOK_S = 60.0  # a candidate that serves traffic already may be busy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Maker:
    """Who promotes what: the run, the model's place in the store, and what tells how good it is.

    `evaluation` is the folder of an evaluation with its held-out questions, empty if none is known. `again` is for a
    roll-back: the number of the revision that is taken up again. `instead_of` is the number of the revision that must
    serve, else nothing is done; 0: whichever does.
    """

    run_id: str = ""
    run_url: str = ""
    model_uri: str = ""
    evaluation: str = ""
    again: int = 0
    instead_of: int = 0


class Promotion:
    """One move of a name.

    Attributes:
        current: what serves under the name and is alive; None if nothing is.
        candidate: what was started beside it, healthy; None before `start` and after the end.
        serving: what serves in the end: the candidate once it is committed, or `current` if `start` found that it
            serves this model with these settings already.
    """

    def __init__(self, config: ServeConfig, model_dir: Path, endpoints_dir: Path, maker: Maker = Maker()) -> None:
        self.config = start.with_image(config)
        self.model_dir = model_dir if model_dir == Path() else folder(model_dir, "model")
        self.endpoints_dir = endpoints_dir
        self.maker = maker
        self.current: Endpoint | None = None
        self.candidate: Endpoint | None = None
        self.serving: Endpoint | None = None
        self._progress: Progress = silent
        self._held = ExitStack()
        self._stopped_before = 0

    def __enter__(self) -> Promotion:
        """Check the settings and hold the name; waits for another promotion of it.

        Raises:
            ServingError: settings that cannot work, no such folder, no whole model in it, the old process could not be
                ended, another revision serves than the maker expects, the name would lose its token check, or it was
                stopped while this waited.
        """
        start.check(self.config, self.model_dir)
        self._stopped_before = records.stopped_at(self.endpoints_dir, self.config.name)
        self._held.enter_context(records.promoting(self.endpoints_dir, self.config.name))
        try:
            self._not_stopped()
            with self._records_held():
                old = records.load(self.endpoints_dir, self.config.name)
                end_leftovers(self.config.name, self.endpoints_dir, serving=old)
            if self.maker.instead_of not in (0, old.revision if old else 0):
                raise ServingError(
                    f"{self.config.name} does not serve revision {self.maker.instead_of} any more: nothing is done."
                )
            self.config = _with_the_front_of(old, self.config)
        except BaseException:
            self._held.close()
            raise
        self.current = old
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a candidate that was not committed, and let go of the name."""
        told_to_end = kind is not None and not issubclass(kind, Exception)
        with to_the_end(), self._held:
            self._abandon(ABANDON_DRAIN_S if told_to_end else math.inf)

    def start(self, progress: Progress) -> Endpoint:
        """Start the model beside what serves now.

        Progress counts seconds of the startup budget.

        Returns:
            The candidate, HEALTHY (UNVERIFIED, if it has no health path); or what serves this model already.

        Raises:
            ServingError: the wanted port is taken, or the old process could not be ended.
            StartError: the server ended, answered wrongly or was not healthy within the budget; cause and log lines.
        """
        self._progress = progress
        with self._records_held():
            self._not_stopped()
            recorded = self._look_again()
            if self.current and self._serves_already(self.current):
                self.serving = self._as_settings_say(self.current)
            else:
                self.candidate, launch = self._launch(recorded, progress)
        if self.serving:
            progress(1, 1, f"{self.serving.name} serves this model already")
            self._bring_up_replicas(self.serving)
            return self.serving
        assert self.candidate is not None
        budget_s = self.config.startup_budget_s or launch.startup_budget_s
        try:
            self.candidate = start.wait_until_healthy(self.candidate, launch, budget_s, progress)
        except ServingError:
            self._not_stopped()  # else its end by that would look like a failure
            raise
        return self.candidate

    def share(self, percent: int) -> None:
        """Give the candidate that part of the front's new requests, and the current model the rest.

        Raises:
            ServingError: the front does not run, or there is none.
        """
        assert self.candidate is not None
        with self._records_held():
            self._look_again()
            servers = self._servers_of_current()
            # Weights count for one server, so those of the current model's servers have a part of its share each.
            rest = max(round((100 - percent) / len(servers)), int(percent < 100)) if servers else 0
            traffic.route(self._asked(), dict.fromkeys(servers, rest) | {following.address(self.candidate): percent})

    def statistics(self) -> dict[str, traffic.ServerStats]:
        """What the front has seen of both, by `candidate` and `current`.

        Raises:
            ServingError: the front does not run, or there is none.
        """
        assert self.candidate is not None
        seen = traffic.statistics(self._asked())
        both = {"candidate": [following.address(self.candidate)], "current": self._servers_of_current()}
        found = {who: [seen[server] for server in servers if server in seen] for who, servers in both.items()}
        return {who: traffic.together(stats) for who, stats in found.items() if stats}

    def commit(self) -> Endpoint:
        """Move the name to the candidate, then end the old one; the endpoint that serves now.

        With a front the candidate gets all new requests first, and the old one has `drain_s` for its running ones.
        Killed at any point, no process is without a record. An old one that cannot be ended is left to the watcher.

        Raises:
            ServingError: nothing was started, the endpoint was stopped meanwhile, the candidate does not answer any
                more, or the front or the cluster does not do what it is told; the name stays.
        """
        if self.candidate is None:
            raise ServingError(f"Nothing was started for {self.config.name}, so its name cannot move.")
        name, folder = self.config.name, self.endpoints_dir
        with self._records_held():
            recorded = self._look_again()
            self._still_there(self.candidate)
            serving = self._move(self.candidate, recorded)
            try:
                end_leftovers(name, folder, serving=serving)
            except ServingError as error:
                logger.error("%s serves, but what served before is left: %s", name, error)
        self._bring_up_replicas(serving)
        return serving

    def _not_stopped(self) -> None:
        """Raise ServingError if a person stopped the name since this promotion began."""
        if records.stopped_at(self.endpoints_dir, self.config.name) != self._stopped_before:
            raise ServingError(f"{self.config.name} was stopped meanwhile, so this start of it was given up.")

    def _records_held(self) -> AbstractContextManager[bool]:
        return records.starting(self.endpoints_dir, self.config.name)

    def _look_again(self) -> Endpoint | None:
        """The record as it is now; `current` if it is alive. The watcher may have started it again, or a person stopped
        it."""
        recorded = records.load(self.endpoints_dir, self.config.name)
        alive = recorded is not None and RUNTIMES[recorded.runtime].alive(recorded.process)
        self.current = recorded if alive else None
        return recorded

    def _launch(self, recorded: Endpoint | None, progress: Progress) -> tuple[Endpoint, Launch]:
        """Start the candidate and write it down."""
        if recorded and self.current is None:
            end(recorded)  # its workers may have outlived it
        if self.current is None or self.current.front is None:
            self._front()  # now: what cannot work is known before a model is loaded
        made, launch = start.launch_beside(
            self.config, self.model_dir, self.endpoints_dir, progress, current=self.current
        )
        maker = {"run_id": self.maker.run_id, "run_url": self.maker.run_url, "model_uri": self.maker.model_uri}
        self.candidate = made.model_copy(update=maker)  # first: whatever fails from here on, it is ended
        records.save(self.endpoints_dir, self.candidate)
        return self.candidate, launch

    def _still_there(self, candidate: Endpoint) -> None:
        """Ask the candidate once more: a person may have taken hours to say yes.

        Raises:
            ServingError: it does not answer, or was ended by somebody who stopped the endpoint.
        """
        recorded = records.load(self.endpoints_dir, candidate.name)
        if recorded is None or recorded.process != candidate.process:
            raise ServingError(f"{self.config.name} was stopped while its candidate was checked, so its name stays.")
        try:
            probe.verify(candidate, LAST_LOOK_S)
        except probe.ProbeError as error:
            raise ServingError(f"The candidate does not answer any more, so the name stays. {error}") from error

    def _move(self, new: Endpoint, recorded: Endpoint | None) -> Endpoint:
        """Lead the requests and the records to the candidate; what serves then."""
        name, folder = self.config.name, self.endpoints_dir
        front = self._front()
        following.send_all_to(new, front)
        before = revisions.numbers(folder, name)
        number = revisions.keep(folder, self._revision(new), recorded.revision if recorded else 0)
        serving = new.model_copy(update={"name": name, "revision": number, "front": front})
        try:
            if self.current:
                records.save(folder, self.current.model_copy(update={"name": name + records.PREVIOUS}))
            records.save(folder, serving)
        except BaseException:
            if number not in before:
                revisions.forget(folder, name, number)
            raise
        self.candidate, self.serving = None, serving
        records.delete(folder, new.name)
        return serving

    def _servers_of_current(self) -> list[str]:
        """Addresses of the current model's server and replicas."""
        if self.current is None:
            return []
        return following.servers(self.current, records.beside(self.endpoints_dir, self.config.name))

    def _bring_up_replicas(self, serving: Endpoint) -> None:
        """Start the replicas and wait for them; what goes wrong with them is not the promotion's, but the watcher's."""
        if serving.front is None and not records.beside(self.endpoints_dir, serving.name):
            return
        budget_s = start.startup_budget_s(self.config, self.model_dir)
        try:
            replicas.bring_up(serving, self.endpoints_dir, budget_s, self._progress)
        except ServingError as error:
            logger.error("The replicas of %s: %s", serving.name, error)

    def _serves_already(self, current: Endpoint) -> bool:
        same = current.settings == start.settings_digest(self.config, self.model_dir)
        return same and probe.check(current).state in (State.HEALTHY, State.UNVERIFIED)

    def _as_settings_say(self, current: Endpoint) -> Endpoint:
        """What serves already, with all settings of the new ones that take no other server."""
        name, folder, front = current.name, self.endpoints_dir, self._front()
        if current.revision in revisions.numbers(folder, name):
            kept = revisions.readable(folder, name, current.revision)
            if kept is None:  # damaged: what serves is known, so its file is made anew
                revisions.replace(folder, self._revision(current).model_copy(update={"number": current.revision}))
            elif kept.config != self.config:
                revisions.amend(folder, name, current.revision, self.config)
        new = current.model_copy(update={"watch": self.config.watch, "front": front})
        if new != current:
            following.share(new, records.beside(folder, name))
            records.save(folder, new)
            following.settle(name, folder, new)
        return new

    def _front(self) -> FrontRecord | None:
        """The front as the settings say, running; None if they want none."""
        return lifecycle.ensure(self.config, self.endpoints_dir) if self.config.front.enabled else None

    def _asked(self) -> FrontRecord:
        """The front that clients ask now."""
        front = (self.current.front if self.current else None) or self._front()
        if front is None:
            raise ServingError(f"{self.config.name} has no front that could share its traffic. Switch serve.front on.")
        return front

    def _abandon(self, longest_drain_s: float) -> None:
        left, self.candidate = self.candidate, None
        if self.serving is not None:
            return
        name, folder = self.config.name, self.endpoints_dir
        with records.starting(folder, name, wait_s=ABANDON_WAIT_S):
            recorded = self._look_again()
            if recorded and self.current is None and recorded.state is not State.STOPPED:
                recorded = recorded.model_copy(update={"state": State.FAILED})  # its replicas may serve on
            front = following.settle(name, folder, recorded, past_candidate=True)
            if left:
                end_behind(front, left, longest_drain_s)
                records.delete(folder, left.name)

    def _revision(self, new: Endpoint) -> Revision:
        """What is about to serve, not numbered yet."""
        return Revision(
            number=0,
            promoted=datetime.now(UTC).isoformat(timespec="seconds"),
            model_dir=new.model_dir,
            model_uri=new.model_uri,
            evaluation=self.maker.evaluation,
            config=self.config,
            run_id=new.run_id,
            run_url=new.run_url,
            again=self.maker.again,
        )


def start_endpoint(
    config: ServeConfig, model_dir: Path, endpoints_dir: Path, progress: Progress, maker: Maker = Maker()
) -> Endpoint:
    """Serve `model_dir` under `config.name` as soon as it has answered a question, without further checks.

    A healthy endpoint of that name with the same model and settings is used again.

    Raises:
        ServingError: see `Promotion`.
        StartError: it did not become healthy; what served before goes on serving.
    """
    with Promotion(config, model_dir, endpoints_dir, maker) as promotion:
        promotion.start(progress)
        return promotion.serving or promotion.commit()


def _with_the_front_of(old: Endpoint | None, config: ServeConfig) -> ServeConfig:
    """The settings with the front that the name has, unless they say something of it: clients rely on its address.

    Raises:
        ServingError: they switch a front off that asks for tokens, which would leave the endpoint open to all.
    """
    front = old.front if old and old.state is not State.STOPPED else None
    if front is None or config.front.enabled:
        return config
    if "enabled" not in config.front.model_fields_set:
        return config.model_copy(update={"front": front.options})
    if front.guarded:
        raise ServingError(
            f"serve.front.enabled: {config.name} is asked through its front, with tokens; without it it would be open "
            "to whoever reaches it. Leave the front on, or stop the endpoint first."
        )
    return config
