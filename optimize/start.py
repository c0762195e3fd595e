"""A compiled program that a compile goes on from: its prompts, and the adapter of its reader where it has one.

So prompts and weights are tuned in turn, as DSPy's BetterTogether does: each compile is checked by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluate.protocol.cases import Cases
from optimize.artifact import ADAPTER, CompileData, read_adapter, restore_program
from optimize.prompts import Prompts, module_of, prompts_of
from programs.gate import Gate
from programs.runtime.errors import InputError, quoted
from programs.tuned.reader import AdapterRecord, LazyReader, tuned_reader
from signatures.rows import Case


@dataclass(frozen=True)
class Start:
    """What a compile takes over from an artifact.

    Attributes:
        directory: Of the artifact.
        sha256: Its hash.
        family: Name of its program.
        prompts: Its prompts.
        tuned, adapter: Of its fine-tuned reader; None and empty without one.
        gate: Its gate, if it has one.
        data: What it was compiled on.
    """

    directory: Path
    sha256: str
    family: str
    prompts: Prompts
    tuned: AdapterRecord | None
    adapter: bytes
    gate: Gate | None
    data: CompileData

    @classmethod
    def of(cls, directory: Path) -> Start:
        """Read and check an artifact.

        Raises:
            InputError: as `restore_program`.
        """
        program, manifest = restore_program(directory)
        prompts = {name: own for name, own in prompts_of(program).items() if module_of(name, manifest.family)}
        adapter = b"" if manifest.adapter is None else read_adapter(directory)
        found = manifest.adapter, adapter, manifest.gate, manifest.data
        return cls(directory, manifest.sha256, manifest.family, prompts, *found)

    def refuse_seen(self, cases: Cases, held_out: Sequence[Case]) -> None:
        """Refuse a held-out check with users or targets that it was tuned on: it would be none.

        Args:
            held_out: Those of the cases on which the winner will be checked.

        Raises:
            InputError: if there are any.
        """
        self.data.refuse_seen_targets(cases)
        known = self.data.tuned_on(cases.protocol.dataset_sha256)
        seen = [case.user_id for case in held_out if case.user_id in known]
        if seen:
            raise InputError(
                f"{len(seen)} held-out users, such as {quoted(seen[0])}, are among those that {self.directory} "
                "was tuned on; give the same cases and the same --held-out, or cases of other users"
            )

    @property
    def reader(self) -> LazyReader | None:
        """Its fine-tuned reader, if it has one."""
        return None if self.tuned is None else tuned_reader(self.tuned, self.adapter, self.directory / ADAPTER)
