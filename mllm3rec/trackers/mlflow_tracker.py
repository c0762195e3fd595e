"""MLflow: records as runs, a study as a run with nested ones, prompts of artifacts in the prompt registry."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from mllm3rec.trackers.tracked_record import TrackedRecord
from programs.runtime.errors import require_extra

_IDENTITY, _FOUND_BY = "mllm3rec.identity", "mllm3rec.identity_sha256"
"""Tags: an identity, and its hash, because a filter cannot quote every path or name."""
_LATEST = "latest."
"""Begins the tag with the later value of a parameter, of which MLflow keeps the first."""
_LONGEST = 6000
"""Most characters of a parameter in MLflow."""

LOCAL_STORE = "sqlite:///mlflow.db"


class MlflowTracker:
    """Writes to one experiment. A record that is written again replaces the figures of the run it had.

    Args:
        uri: Tracking store; None for MLFLOW_TRACKING_URI, or else `LOCAL_STORE`.
        experiment: Its name; made if it is missing.

    Raises:
        MissingExtraError: without the extra `mlflow`.
    """

    def __init__(self, uri: str | None = None, experiment: str = "mllm3rec") -> None:
        mlflow: Any = require_extra("mlflow", "mlflow", "MLflow")
        if uri is not None or not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(uri or LOCAL_STORE)
        self._mlflow = mlflow
        self._client = mlflow.MlflowClient()
        self._experiment: str = mlflow.set_experiment(experiment).experiment_id
        self._live: str | None = None

    def begin(self, name: str, identity: str) -> None:
        """Open the run of an identity, or a new one, for figures that come while work goes on; `write` fills it."""
        self._live = self._known(identity) or self._new(name, identity)
        self._client.update_run(self._live, status="RUNNING")

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Add figures to the open run."""
        now = round(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._live, metrics=metrics)

    def write(self, record: TrackedRecord, failed: bool = False) -> str:
        """Write a record with its children.

        Args:
            failed: Whether the work ended early; a later `write` of the same identity may end it well.

        Returns:
            Where it is.
        """
        found = self._written(record, run_id=self._live, status="FAILED" if failed else "FINISHED")
        self._live = None
        self._register(record)
        return f"{self._mlflow.get_tracking_uri()}, experiment {self._experiment}, run {found}"

    def give_up(self) -> None:
        """Close the open run as failed, if `write` has not closed it."""
        if self._live is not None:
            self._client.set_terminated(self._live, "FAILED")

    def _written(
        self, record: TrackedRecord, parent: str | None = None, run_id: str | None = None, status: str = "FINISHED"
    ) -> str:
        run_id = run_id or self._known(record.identity) or self._new(record.name, record.identity)
        entities, now = self._mlflow.entities, round(time.time() * 1000)
        tags = {**_tags(record.identity), "mllm3rec.kind": record.kind}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        known = self._client.get_run(run_id).data.params
        given = {name: value[:_LONGEST] for name, value in record.params.items()}
        params = {name: value for name, value in given.items() if name not in known}
        # MLflow keeps the first value of a parameter: a compile that went on after its end has others.
        tags |= {f"{_LATEST}{name}": value for name, value in given.items() if known.get(name, value) != value}
        _in_batches(
            self._client,
            run_id,
            [entities.Param(name, value) for name, value in params.items()],
            [entities.Metric(name, float(value), now, 0) for name, value in record.metrics.items()],
            [entities.RunTag(name, value) for name, value in tags.items()],
        )
        for path in (*record.files, *filter(None, [record.report])):
            self._client.log_artifact(run_id, str(path))
        for name, text in record.prompts.items():
            self._client.log_text(run_id, text, f"prompts/{name}.txt")
        for child in record.children:
            self._written(child, run_id)
        self._client.set_terminated(run_id, status)
        return run_id

    def _known(self, identity: str) -> str | None:
        wanted = f"tags.`{_FOUND_BY}` = '{_tags(identity)[_FOUND_BY]}'"
        found = self._client.search_runs([self._experiment], wanted, max_results=1)
        return found[0].info.run_id if found else None

    def _new(self, name: str, identity: str) -> str:
        made: str = self._client.create_run(self._experiment, run_name=name, tags=_tags(identity)).info.run_id
        return made

    def _register(self, record: TrackedRecord) -> None:
        """Prompts as versions in the registry; one that is there already gets no further version."""
        genai = self._mlflow.genai
        for name, text in record.prompts.items():
            full = f"{record.params['family']}.{name}".replace("/", ".")
            latest = genai.load_prompt(f"prompts:/{full}@latest", allow_missing=True)
            if latest is None or latest.template != text:
                genai.register_prompt(name=full, template=text, tags={"artifact": record.params["sha256"]})


def _tags(identity: str) -> dict[str, str]:
    return {_IDENTITY: identity, _FOUND_BY: hashlib.sha256(identity.encode()).hexdigest()}


def _in_batches(client: Any, run_id: str, params: list[Any], metrics: list[Any], tags: list[Any]) -> None:
    for start in range(0, max(len(params), len(metrics), 1), 100):
        few = slice(start, start + 100)
        client.log_batch(run_id, params=params[few], metrics=metrics[few], tags=tags if start == 0 else [])
