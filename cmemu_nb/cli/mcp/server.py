"""The server of the Model Context Protocol: it lists and runs the tools, and announces when they change."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import jsonschema
from mcp import types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from cmemu_nb.cli.discovery import find
from cmemu_nb.cli.mcp.calls import CALL, function_tools
from cmemu_nb.cli.mcp.modules import module_tools
from cmemu_nb.cli.mcp.output import as_text, mask_of
from cmemu_nb.cli.mcp.views import VIEWS
from cmemu_nb.errors import CmemuError, InvalidRequest, NotFound, known
from cmemu_nb.version import __version__
from cmemu_nb.wire.json_values import encodable

if TYPE_CHECKING:
    import argparse

    from mcp.server import ServerRequestContext
    from mcp.server.session import ServerSession

    from cmemu_nb.cli.mcp.tool import Tool
    from cmemu_nb.emulator import Emulator

WATCH_SECONDS = 1.0
INSTRUCTIONS = (
    "An emulator of the runtime lifecycle of Palantir Foundry's compute modules. Each function that a runtime serves "
    "is a tool of its own, call_NAME; the other tools show the runtimes and jobs, and launch "
    "programs if this server has started the emulator."
)


class ToolServer:
    """The tools of the emulator that the options name. Each use finds it again, since it may have been restarted.

    Clients of the protocol's versions up to 2025 receive changes of the list unasked, later ones subscribe to them.
    """

    def __init__(self, options: argparse.Namespace, emulator: Emulator | None) -> None:
        self._options = options
        fixed = [*VIEWS, CALL, *(module_tools(emulator) if emulator is not None else ())]
        self._fixed = {each.name: each for each in fixed}
        self._listed: list[tuple[Any, ...]] | None = None
        self._session: ServerSession | None = None
        self._bus = InMemorySubscriptionBus()
        self.server: Server[Any] = Server(
            "cmemu",
            version=__version__,
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
            on_subscriptions_listen=ListenHandler(self._bus),
        )

    async def _list(self, context: ServerRequestContext[Any], _: object) -> types.ListToolsResult:
        if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            self._session = context.session
        tools = await self._tools()
        self._listed = _descriptions(tools)
        return types.ListToolsResult(tools=[_described(each) for each in tools])

    async def _call(self, _: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            text, failed = await self._run(params.name, params.arguments or {}), False
        except CmemuError as error:
            text, failed = await self._without_tokens(str(error)), True
        # A text that can't be encoded would end the whole server, not only this call.
        return types.CallToolResult(content=[types.TextContent(text=encodable(text))], is_error=failed)

    async def _run(self, name: str, given: dict[str, Any]) -> str:
        async with await find(self._options) as remote:
            tool = self._fixed.get(name)
            if tool is None:
                tool = self._of_function(name, await function_tools(remote))
            else:
                _check(tool, given)
            return as_text(await tool.run(remote, given), await mask_of(remote))

    def _of_function(self, name: str, tools: list[Tool]) -> Tool:
        for each in tools:
            if each.name == name:
                return each
        raise NotFound(f"There is no tool {name!r}. {known([*self._fixed, *(each.name for each in tools)], 'tools')}")

    async def _without_tokens(self, text: str) -> str:
        with contextlib.suppress(CmemuError):
            async with await find(self._options) as remote:
                return as_text(text, await mask_of(remote))
        return text

    async def _tools(self) -> list[Tool]:
        with contextlib.suppress(CmemuError):  # the tools that remain say what is wrong
            async with await find(self._options) as remote:
                return [*self._fixed.values(), *await function_tools(remote)]
        return [*self._fixed.values()]

    async def watch(self) -> None:
        """Announce each change of the list of tools, once a client has listed them."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._listed is None:
                continue
            found = _descriptions(await self._tools())
            if found != self._listed:
                self._listed = found
                await self._bus.publish(ToolsListChanged())
                if self._session is not None:
                    await self._session.send_tool_list_changed()


def _check(tool: Tool, given: dict[str, Any]) -> None:
    """Raise `InvalidRequest` for arguments that don't match a tool. Calls check a function's input themselves."""
    for error in jsonschema.Draft202012Validator(tool.input_schema).iter_errors(given):
        where = "".join(f"{each}: " for each in error.absolute_path)
        raise InvalidRequest(f"The arguments of {tool.name} are wrong: {where}{error.message[:500]}.")


def _descriptions(tools: list[Tool]) -> list[tuple[Any, ...]]:
    return [(each.name, each.description, each.input_schema) for each in tools]


def _described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=types.ToolAnnotations(read_only_hint=True) if tool.read_only else None,
    )


async def serve(options: argparse.Namespace, emulator: Emulator | None) -> None:
    """Serve one client over stdin and stdout, until it closes stdin; `emulator` is the one that this process runs."""
    tools = ToolServer(options, emulator)
    start = tools.server.create_initialization_options(NotificationOptions(tools_changed=True))
    async with stdio_server() as (reading, writing):
        watching = asyncio.create_task(tools.watch())
        try:
            await tools.server.run(reading, writing, start)
        finally:
            watching.cancel()
