"""The Dockerfile: what the documented `docker run` needs is in the image. It is read here, not built."""

from __future__ import annotations

from programs.runtime.environment import Environment, variable
from programs.runtime.weights import REGISTRY
from tests.support.paths import ROOT


def test_the_weights_of_the_default_encoder_are_fetched_where_the_volume_begins_with_them() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    encoder = Environment.model_fields["encoder"].default
    assert encoder in REGISTRY
    # As the user who reads them, into the cache, and before VOLUME: what is written there later is not in the image.
    wanted = [
        "USER serving",
        f"ENV {variable('cache')}=/cache",
        f"RUN mllm3rec models fetch {encoder}",
        'VOLUME ["/cache"]',
    ]
    assert [line for line in lines if line in wanted] == wanted
