"""Artifact of a compiled program: save, load and verify a directory of JSON and text.

    program.json     instructions and demos as DSPy saves them; no language model, no pickle
    manifest.json    roles, contracts of the signatures, hashes, data, objective, verdict, usage
    prompts/         every prompt as it is sent, with placeholders for the inputs
    adapter.safetensors  weights of a fine-tuned reader, where there is one; its base is named by hash
    search/          files of the compile; not read when the artifact is loaded

Loading runs no code from the artifact: it is data, and it is checked against its hashes and the current signatures.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import dspy
import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from evaluate.protocol.cases import Cases
from evaluate.runs.directory import MANIFEST
from optimize.finals import Finals
from optimize.holdout import HoldoutVerdict
from optimize.objective import ObjectiveWeights
from optimize.program_state import REMEDY, apply_state, read_state
from optimize.space import Configuration
from programs.gate import Gate
from programs.lm.backends import Backends
from programs.lm.roles import ROLE_NAMES, Roles
from programs.prior.encoders import HashingEncoder
from programs.program import PROGRAMS, Fusion, MLLM3Rec, Parts
from programs.role_predictor import RolePredictor
from programs.runtime.atomic import own_folder, write_atomically
from programs.runtime.errors import InputError, input_error, listed, quoted
from programs.runtime.lock import LOCK
from programs.runtime.untrusted import parse_untrusted_json, read_untrusted
from programs.trait_store import TraitStore
from programs.tuned.reader import AdapterRecord, tuned_reader
from signatures.rows import Case, Usage
from signatures.schema import MotivationSchema

ARTIFACT_FORMAT = "mllm3rec-artifact/1"
PROGRAM, PROMPTS, SEARCH_FOLDER, ADAPTER = "program.json", "prompts", "search", "adapter.safetensors"
ADAPTER_BYTES = 1 << 30
"""Largest adapter: rank 16 on all matrices of 16 layers takes 10 MB for a base of 135M parameters, and 80 for 7B."""
_SEARCH_SUFFIXES = {
    ".safetensors",
    ".json",
    ".jsonl",
    ".html",
    ".sqlite",
    ".sqlite-wal",
    ".sqlite-shm",
    ".sqlite-journal",
}

Contract = dict[str, dict[str, JsonValue]]
"""Fields of a signature by name: kind (input or output), description, and type as JSON schema."""


class CompileData(BaseModel):
    """The data that a program was compiled on.

    Attributes:
        searched, held_out: Ids of dev users.
        earlier: Ids of further users that the compiled programs were tuned on which this compile went on from, by the
            hash of their dataset.
        fitted_on: Rules of the training data that weights or prototypes were fitted on
            (`EvaluationProtocol.training_rules`), by the hash of the dataset; those of earlier compiles, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    dataset_sha256: str
    cases_sha256: str
    target: str
    negatives: int
    searched: tuple[str, ...]
    held_out: tuple[str, ...]
    earlier: dict[str, tuple[str, ...]] = Field(default_factory=dict, exclude_if=lambda users: not users)
    fitted_on: dict[str, dict[str, str | int | float]] = Field(default_factory=dict, exclude_if=lambda rules: not rules)

    @classmethod
    def of(
        cls, cases: Cases, searched: Sequence[Case], held_out: Sequence[Case], before: CompileData | None, fitted: bool
    ) -> CompileData:
        """The data of a compile.

        Args:
            before: Of the compiled program that it went on from, if there is one.
            fitted: Whether weights or prototypes were fitted on the training data of the cases.
        """
        protocol, now = cases.protocol, {case.user_id for case in cases}
        dataset = protocol.dataset_sha256
        earlier, rules = {}, {dataset: protocol.training_rules()} if fitted else {}
        if before is not None:
            users = {one: before.tuned_on(one) for one in sorted({before.dataset_sha256, *before.earlier})}
            users[dataset] = users.get(dataset, set()) - now
            earlier = {one: tuple(sorted(own)) for one, own in users.items() if own}
            rules = before.fitted_on | rules
        return cls(
            dataset=protocol.dataset,
            dataset_sha256=dataset,
            cases_sha256=cases.sha256,
            target=protocol.target,
            negatives=protocol.negatives,
            searched=tuple(case.user_id for case in searched),
            held_out=tuple(case.user_id for case in held_out),
            earlier=earlier,
            fitted_on=rules,
        )

    def tuned_on(self, dataset_sha256: str) -> set[str]:
        """Users of a dataset that the program, or one that its compile went on from, was tuned on."""
        own = self.searched if self.dataset_sha256 == dataset_sha256 else ()
        return {*own, *self.earlier.get(dataset_sha256, ())}

    def refuse_seen_targets(self, cases: Cases) -> None:
        """Refuse cases whose targets are in the training data that weights or prototypes were fitted on.

        Raises:
            InputError: if some are, which other rules than those of the cases can have led to.
        """
        rules = self.fitted_on.get(cases.protocol.dataset_sha256)
        if rules is None or not (leaks := cases.leaks_by(rules)):
            return
        fitted = ", ".join(f"{name} {value}" for name, value in rules.items())
        raise InputError(
            f"{leaks[0]}; the program was fitted on it ({fitted}), so metrics on these cases are not valid; draw cases "
            "by the rules that it was fitted by, or compile it on cases like these"
        )


class ArtifactManifest(BaseModel):
    """Metadata of an artifact.

    Attributes:
        family: Name of the program (`programs.program.PROGRAMS`).
        models: Model names by role, see `programs.lm.endpoints.model_name`.
        encoder: Name of the sentence encoder of the prior.
        prior: Formula of the prior, see `programs.prior.choice.recorded`; artifacts from before there was a choice have
            none, and their hash leaves it out.
        weight, head, gate: See `Fusion`; artifacts without a gate leave it out.
        motivations: The motivational schema.
        optimizer: Name of the optimizer.
        chosen: The winning configuration, with names of the candidates in `search/`; None if there are none.
        trial, trials: Number of the winning trial, and number of trials.
        weights, similarity, interactions: The objective.
        searched: Mean score of the uncompiled program and of the winner over the users of the search.
        searched_users: Number of these users where finals and data do not tell it, else 0; see `choosing_users`.
        finals: The final round, if there was one.
        verdict: Result of the held-out check.
        spent: Usage by phase of the compile.
        contracts: Signatures by predictor name.
        files: SHA-256 by path, of every file that is loaded.
        adapter: What the adapter of a fine-tuned reader belongs to; None without one.
        start: Hash of the artifact that its compile went on from; empty without one.
        sha256: SHA-256 of all other fields of this manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: str = ARTIFACT_FORMAT
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    family: str
    roles: Roles
    models: dict[str, str] = {}
    encoder: str = ""
    prior: int | str = Field(default=2, exclude_if=lambda version: version == 2)
    weight: float
    head: int | None = None
    gate: Gate | None = Field(default=None, exclude_if=lambda gate: gate is None)
    motivations: MotivationSchema
    optimizer: str
    chosen: Configuration | None = None
    trial: int | None = None
    trials: int = 0
    weights: ObjectiveWeights
    similarity: str
    interactions: int
    data: CompileData
    searched: dict[Literal["before", "after"], float] = {}
    searched_users: int = Field(default=0, exclude_if=lambda users: not users)
    finals: Finals | None = Field(default=None, exclude_if=lambda finals: finals is None)
    verdict: HoldoutVerdict
    spent: dict[str, Usage] = {}
    contracts: dict[str, Contract] = {}
    files: dict[str, str] = {}
    versions: dict[str, str] = {}
    adapter: AdapterRecord | None = Field(default=None, exclude_if=lambda adapter: adapter is None)
    start: str = Field(default="", exclude_if=lambda start: not start)
    sha256: str = ""

    @property
    def choosing_users(self) -> int:
        """Number of users by whom the winner was chosen, whose score `searched` is."""
        found = len(self.data.searched) if self.finals is None else self.finals.users
        return self.searched_users or found

    def sealed(self) -> ArtifactManifest:
        """The manifest with its own hash."""
        return self.model_copy(update={"sha256": self.seal()})

    def seal(self) -> str:
        """SHA-256 of all fields but `sha256`."""
        body = self.model_dump(mode="json", exclude={"sha256"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def contract(signature: type[dspy.Signature]) -> Contract:
    """The fields of a signature, without its instructions."""
    fields: Contract = {}
    for name, field in signature.fields.items():
        bounds = [str(bound) for bound in field.metadata]
        fields[name] = {
            "kind": field.json_schema_extra["__dspy_field_type"],
            "description": field.json_schema_extra["desc"],
            "type": TypeAdapter(field.annotation).json_schema(),
            **({"bounds": ", ".join(bounds)} if bounds else {}),
        }
    return fields


def render_prompts(program: MLLM3Rec) -> dict[str, str]:
    """Every predictor's messages as text, with `{name}` for each input."""
    rendered = {}
    for path, role_predictor in program.named_sub_modules(RolePredictor):
        predictor = role_predictor.predict
        adapter = role_predictor.backends.adapter_for(role_predictor.role, predictor)
        inputs = {name: f"{{{name}}}" for name in predictor.signature.input_fields}
        messages = adapter.format(predictor.signature, predictor.demos, inputs)
        name = f"{path.removeprefix('self.')}.predict"
        rendered[name] = "\n".join(f"--- {message['role']} ---\n{message['content']}\n" for message in messages)
    return rendered


def save_artifact(
    directory: Path, program: MLLM3Rec, manifest: ArtifactManifest, adapter: bytes = b""
) -> ArtifactManifest:
    """Write an artifact: each file atomically, the manifest last.

    Args:
        directory: Its folder, which is made if it is missing; may hold a `search/` and an older artifact.
        manifest: Without contracts, files and hash, which are computed here.
        adapter: Content of the adapter file of a fine-tuned reader.

    Returns:
        The manifest as written. An equal artifact stays as it is, so that evaluations of it can be resumed.

    Raises:
        InputError: if the adapter is too large to be read again, or the folder of prompts is a symbolic link.
    """
    state = program.dump_state(json_mode=True)
    _refuse_models(state)
    # Keys keep their order, in which demos are rendered.
    files = {PROGRAM: json.dumps(state, ensure_ascii=False, indent=1).encode() + b"\n"}
    if len(adapter) > ADAPTER_BYTES:
        raise InputError(f"the adapter has {len(adapter) >> 20} MiB; at most {ADAPTER_BYTES >> 20} can be read again")
    if adapter:
        files[ADAPTER] = adapter
    for name, text in render_prompts(program).items():
        files[f"{PROMPTS}/{name}.txt"] = text.encode()
    contracts = {name: contract(predictor.signature) for name, predictor in program.named_predictors()}
    # Some fields, such as unpriced calls, are in no file: what is returned equals what will be read.
    written = ArtifactManifest.model_validate_json(manifest.model_dump_json())
    whole = written.model_copy(
        update={"contracts": contracts, "files": {path: _sha256(content) for path, content in files.items()}}
    ).sealed()
    earlier = _same(directory, whole)
    if earlier is not None:
        return earlier
    prompts = own_folder(directory / PROMPTS)
    (directory / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(prompts, ignore_errors=True)
    for path, content in files.items():
        write_atomically(directory / path, content)
    write_atomically(directory / MANIFEST, whole.model_dump_json(indent=1).encode() + b"\n")
    return whole


def read_adapter(directory: Path) -> bytes:
    """The adapter file of an artifact.

    Raises:
        InputError: as `read_untrusted`.
    """
    return read_untrusted(directory / ADAPTER, ADAPTER_BYTES)


def _same(directory: Path, manifest: ArtifactManifest) -> ArtifactManifest | None:
    """The existing manifest if it differs only in its date and in cache hits, else None."""
    try:
        existing = read_manifest(directory)
        check_files(directory, existing)
    except InputError:
        return None
    if _paid(manifest.spent) != _paid(existing.spent):
        return None
    renewed = manifest.model_copy(update={"created": existing.created, "spent": existing.spent}).sealed()
    return existing if renewed == existing else None


def _paid(spent: Mapping[str, Usage]) -> dict[str, Usage]:
    """Usage by phase without cache hits; empty ones are left out."""
    paid = {phase: usage.model_copy(update={"cache_hits": 0}) for phase, usage in spent.items()}
    return {phase: usage for phase, usage in paid.items() if usage != Usage()}


def _refuse_models(state: Mapping[str, Any]) -> None:
    if any(predictor.get("lm") is not None for predictor in state.values()):
        raise ValueError("a predictor holds a language model; artifacts store no models, they are bound at call time")


def is_artifact(path: Path) -> bool:
    """Whether a path is an artifact, valid or not: a folder with a manifest or a program of one."""
    return (path / MANIFEST).is_file() or (path / PROGRAM).is_file()


def read_manifest(directory: Path) -> ArtifactManifest:
    """Read and check an artifact's manifest alone.

    Raises:
        InputError: if it is missing, truncated, changed, or of another format.
    """
    path = directory / MANIFEST
    if not path.exists() and not path.is_symlink():
        raise InputError(f"{path}: no such file; if the compile is not finished, run the same command to resume it")
    content = parse_untrusted_json(read_untrusted(path), path, REMEDY)
    if not isinstance(content, dict) or content.get("format") != ARTIFACT_FORMAT:
        name = content.get("format") if isinstance(content, dict) else None
        raise InputError(f"{path}: format {name!r:.80} cannot be read, only {ARTIFACT_FORMAT!r}")
    try:
        manifest = ArtifactManifest.model_validate(content)
    except ValidationError as error:
        raise input_error(path, error) from None
    if manifest.seal() != manifest.sha256:
        raise InputError(f"{path}: was changed after it was written (sha256 differs)")
    for role in ROLE_NAMES:
        # An artifact could otherwise send any secret of this environment to any server.
        if manifest.roles.of(role).api_key_env is not None:
            raise InputError(f"{path}: field 'roles.{role}.api_key_env': an artifact must not choose the key to send")
    return manifest


def restore_program(directory: Path, parts: Parts | None = None) -> tuple[MLLM3Rec, ArtifactManifest]:
    """Load and check an artifact.

    Args:
        parts: Parts of the program; its name, motivational schema and fusion come from the artifact, except for a gate
            or a head that the parts have. None builds the program without data, only to check it.

    Returns:
        The program, marked as compiled for DSPy's optimizers, and the manifest.

    Raises:
        InputError: if a file was added, removed or changed, a field of a signature changed, the motivational schema is
            not the artifact's, or a prompt is rendered differently.
    """
    manifest = read_manifest(directory)
    check_files(directory, manifest)
    if manifest.family not in PROGRAMS:
        raise InputError(f"{directory}: there is no program {quoted(manifest.family)}, only {', '.join(PROGRAMS)}")
    if parts is not None and parts.schema != manifest.motivations:
        raise InputError(
            f"{directory}: compiled for the motivational schema {quoted(manifest.motivations.name)}, "
            f"not for {quoted(parts.schema.name)} as given; compile again for that one"
        )
    bare = Parts(
        backends=Backends(manifest.roles),
        catalogue={},
        prior=_NoPrior(),
        encoder=HashingEncoder(),
        traits=TraitStore(),
        schema=manifest.motivations,
        fusion=Fusion(manifest.weight, manifest.head, manifest.gate),
        prototypes=None if manifest.chosen is None else manifest.chosen.prototypes,
    )
    checked = _loaded(directory, bare, manifest)
    _check_prompts(directory, render_prompts(checked))
    if parts is None:
        return checked, manifest
    fusion = replace(bare.fusion, gate=parts.fusion.gate or manifest.gate, head=parts.fusion.head or manifest.head)
    return _loaded(directory, replace(parts, fusion=fusion, prototypes=bare.prototypes), manifest), manifest


def _loaded(directory: Path, parts: Parts, manifest: ArtifactManifest) -> MLLM3Rec:
    if manifest.adapter is not None:
        if ADAPTER not in manifest.files:
            raise InputError(f"{directory}: has no {ADAPTER}, but its manifest names an adapter; {REMEDY}")
        adapter = read_adapter(directory)
        if _sha256(adapter) != manifest.files[ADAPTER]:
            raise InputError(f"{directory / ADAPTER}: was changed after it was written (sha256 differs)")
        parts = replace(parts, reader=tuned_reader(manifest.adapter, adapter, directory / ADAPTER))
    program = PROGRAMS[manifest.family](parts)
    present = {name: contract(p.signature) for name, p in program.named_predictors() if name in manifest.contracts}
    check_contracts(str(directory), manifest.contracts, present)
    # Predictors that explain may be missing in the artifact; they keep their original prompts.
    apply_state(program, read_state(directory / PROGRAM), directory / PROGRAM)
    program._compiled = True
    return program


def check_contracts(where: str, stored: Mapping[str, Contract], present: Mapping[str, Contract]) -> None:
    """Compare signatures field by field.

    Raises:
        InputError: naming predictor and field of the first difference.
    """
    for predictor, fields in stored.items():
        if predictor not in present:
            raise InputError(f"{where}: the program no longer has a predictor {quoted(predictor)}; compile it again")
        current = present[predictor]
        for name in dict.fromkeys([*fields, *current]):
            if name not in current:
                problem = "was removed"
            elif name not in fields:
                problem = "was added"
            elif fields[name] != current[name]:
                old, new = fields[name], current[name]
                changed = listed(key for key in new | old if old.get(key) != new.get(key))
                problem = f"has another {changed}"
            else:
                continue
            raise InputError(
                f"{where}: field {quoted(name)} of {predictor} {problem} since it was compiled; compile it again"
            )


def check_files(directory: Path, manifest: ArtifactManifest) -> None:
    """Check that the files of an artifact are those of its manifest, and no links.

    Raises:
        InputError: naming the first file that is missing, was added or changed, or is a symbolic link.
    """
    # Links are refused first, so that no file behind a link is read or hashed.
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if not _is_folder(path)}
    for name, sha256 in manifest.files.items():
        if name not in files:
            problem = "is missing" if _is_plain(name) else "is outside the artifact's folder"
            raise InputError(f"{directory}: file {name[:100]!r} {problem}; the artifact is damaged")
        content = read_adapter(directory) if name == ADAPTER else read_untrusted(files[name])
        if _sha256(content) != sha256:
            raise InputError(f"{files[name]}: was changed after it was written (sha256 differs)")
    for name in files.keys() - {MANIFEST, *manifest.files}:
        path = Path(name)
        if path.parts[0] != SEARCH_FOLDER or (path.suffix not in _SEARCH_SUFFIXES and path.name != LOCK):
            raise InputError(f"{files[name]}: does not belong to the artifact; remove it (artifacts hold no pickles)")


def _is_folder(path: Path) -> bool:
    if path.is_symlink():
        raise InputError(f"{path}: is a symbolic link; an artifact may hold plain files only")
    return path.is_dir()


def _is_plain(name: str) -> bool:
    """Whether a name of the manifest stays inside the artifact."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _check_prompts(directory: Path, rendered: Mapping[str, str]) -> None:
    for name, text in rendered.items():
        file = directory / PROMPTS / f"{name}.txt"
        if file.is_file() and file.read_bytes() != text.encode():
            raise InputError(
                f"{file}: this installation renders the prompt of {name} differently (another adapter or DSPy "
                "version); compile it again, or use the versions in its manifest"
            )


class _NoPrior:
    def scores(self, history: object, candidates: object) -> np.ndarray:
        raise NotImplementedError("a program restored without `parts` cannot rank")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
