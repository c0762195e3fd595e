"""MCP: the official client lists and calls the tools, in this process and over standard input and output."""

from __future__ import annotations

import asyncio
import os

from mcp import Client, StdioServerParameters

from mllm3rec.serve.mcp_server import mcp_server
from tests.support.command_line import process_of
from tests.support.fake_server import FakeOpenAI
from tests.support.paths import ROOT
from tests.support.served import serving

HISTORY = ["D001", {"text": "a wool blanket"}]


async def _calls(client: Client) -> None:
    assert {tool.name for tool in (await client.list_tools()).tools} == {"recommend", "profile", "explain"}
    found = await client.call_tool("recommend", {"history": HISTORY, "k": 2})
    assert not found.is_error
    assert found.structured_content is not None
    assert found.structured_content["answered_by"] == "program"
    assert len(found.structured_content["items"]) == 2
    profile = await client.call_tool("profile", {"history": HISTORY})
    assert profile.structured_content is not None
    assert profile.structured_content["motivations"]
    reason = await client.call_tool("explain", {"history": HISTORY, "item": "D005"})
    assert reason.structured_content is not None
    assert reason.structured_content["reason"]
    wrong = await client.call_tool("recommend", {"user": "gone"})
    assert wrong.is_error
    assert "no user" in str(wrong.content)
    neither = await client.call_tool("profile", {})
    assert "give either `user` or `history`" in str(neither.content)


def test_tools_in_this_process(server: FakeOpenAI) -> None:
    async def run() -> None:
        async with serving("listwise", server.model()) as served, Client(mcp_server(served.service)) as client:
            await _calls(client)

    asyncio.run(run())


def test_tools_over_standard_input_and_output(server: FakeOpenAI) -> None:
    program, *arguments = process_of("serve", "listwise", "demo", "--mcp", "--model", server.model())
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(os.environ), cwd=str(ROOT))

    async def run() -> None:
        async with Client(parameters) as client:
            await _calls(client)

    asyncio.run(run())
