"""The systems that tools ask: every call with a deadline, behind a circuit breaker, over one pool."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import HALF_OPENED, OpenedState
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random

from mcp_server.settings import Secret, TlsSettings
from mcp_server.tls import RenewedContext, renewed_client_context
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.deadline import within

__all__ = [
    "OPEN_S",
    "AnswerTooLarge",
    "BackendUnavailable",
    "Guard",
    "HttpBackend",
    "OutcomeUnknown",
    "Probe",
    "SlowAnswer",
    "one_request",
    "parsed",
    "read_answer",
    "reading",
]

_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_PARSED_AT_ONCE_BYTES = 256 * 1024
# Two: what more there is waits, and the event loop keeps most of the time.
_PARSERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="parse")
_READ_ATTEMPTS = 2
_READ_PAUSE_S = 0.1
_FAILURES_TO_OPEN = 5
# Calls of one backend at once; more of them would wait for it and not for us.
_AT_ONCE = 32
_WAIT_FOR_A_PLACE_S = 1.0
OPEN_S = 15.0
"""Seconds for which an open circuit refuses."""

# A backend that had fewer seconds, because the work had, is not to blame for its silence.
_FAIR_S = 0.5

# The other form, a date, says the same less plainly.
_SECONDS = re.compile(r"[0-9]{1,6}")

_T = TypeVar("_T")
_Params = Mapping[str, str] | Sequence[tuple[str, str]]


class BackendUnavailable(ToolError):
    """The system behind a tool does not answer; the other tools keep working."""

    def __init__(self, backend: str, why: str) -> None:
        super().__init__(f"{backend} is not available: {why}", retryable=True)


class _CircuitOpen(BackendUnavailable):
    """Nothing was sent."""


class _OutOfTime(ToolError):
    """What was done before left a backend too little time to answer."""

    def __init__(self, backend: str) -> None:
        super().__init__(f"there was no time left to wait for {backend}", retryable=True)


class _Busy(ToolError):
    """Nothing was sent: so many calls wait for a backend that this one was not begun."""

    def __init__(self, backend: str, at_once: int) -> None:
        super().__init__(
            f"{at_once} calls of this server wait for {backend} already; try again in a few seconds",
            retryable=True,
        )


class OutcomeUnknown(ToolError):
    """A change was sent, and nothing tells whether it was made.

    It is not retryable: whoever repeats the change may make it twice.

    Args:
        why: what happened instead of an answer.
        verify_hint: what to do before trying again, such as `look at the replicas`.
    """

    def __init__(self, backend: str, why: str, *, verify_hint: str) -> None:
        super().__init__(
            f"it is not known whether the change was made: {backend} {why}; "
            f"before you try again, {verify_hint}"
        )


@contextmanager
def reading(backend: str) -> Iterator[None]:
    """Take what is not of the backend's API, such as a page to log in at, for an outage.

    For the length of a block that reads an answer, and does nothing else.

    Raises:
        BackendUnavailable: the block could make nothing of what it read.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BackendUnavailable(backend, "it answered what its API does not give") from error


class AnswerTooLarge(ToolError):
    """A backend answered more than is read of an answer."""

    def __init__(self, backend: str, most_bytes: int) -> None:
        super().__init__(f"{backend} answered more than {most_bytes // 2**20} MiB; ask for less")


class ConnectionBroken(aiohttp.ClientConnectionError):
    """The connection broke after a change was sent."""


class SlowAnswer(ToolError):
    """An answer did not come in time from a backend that is well: there is too much to do for it."""

    def __init__(self, backend: str, timeout_s: float) -> None:
        super().__init__(f"{backend} did not finish within {timeout_s:g} s")


@dataclass(frozen=True, slots=True)
class Probe:
    """How to tell an expensive request from a backend that is away: something else is asked besides.

    Attributes:
        path: what is asked; a good answer shows that the backend is there.
        after_s: when, in seconds since the request was sent.
        deadline_s: until when both answers are waited for.
    """

    path: str
    after_s: float
    deadline_s: float


# What tells that the backend itself is in trouble; a refusal or a bad query does not.
_FAILURES = (TimeoutError, OSError, aiohttp.ClientError, BackendUnavailable)
# What tells that nothing was sent.
_NO_CONNECTION = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)


# What an outage is called: by the first kind that it is of.
_OUTAGES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ConnectionTimeoutError, "no connection within {half} s"),
    (TimeoutError, "no answer within {given} s"),
    (aiohttp.ClientSSLError, "its certificate is not accepted, or it does not speak TLS"),
    (aiohttp.ClientConnectorDNSError, "the name of its host is not known"),
    (aiohttp.ClientConnectorError, "it does not accept connections"),
    (aiohttp.ClientConnectionError, "it broke off the connection"),
    (aiohttp.ClientPayloadError, "it broke off the connection"),
)


class Guard:
    """Keeps one backend's trouble from becoming ours.

    After five failures in a row the circuit opens: for 15 seconds calls are refused at once, then
    one is let through to see whether the backend is back. The others wait for what it finds; where it
    tells nothing, because its caller went away, the next one is let through.

    Only so many calls are made at once; others wait a second for a place, and are refused then. That
    there is none tells of us and not of the backend.

    Args:
        name: how error messages call the backend, such as `Prometheus`.
        timeout_s: deadline of one call in seconds, retries included. It is less where the work that
            asks has little time left (`mcp_server.tools.deadline`).
        at_once: how many calls are made at once.
    """

    def __init__(self, name: str, *, timeout_s: float, at_once: int = _AT_ONCE) -> None:
        self.name = name
        self._timeout_s = timeout_s
        self._at_once = at_once
        self._places = asyncio.Semaphore(at_once)
        self._trial_over = asyncio.Event()
        self._trial_over.set()
        self._circuits = AsyncCircuitBreakerFactory(
            default_threshold=_FAILURES_TO_OPEN,
            default_ttl=OPEN_S,
            exclude=[(BaseException, lambda error: not isinstance(error, _FAILURES))],
        )

    @property
    def connect_s(self) -> float:
        """Seconds in which a connection of a call that begins now must be made.

        Fewer than the deadline of the call: where that is over, the request was sent.
        """
        return self.given_s / 2

    @property
    def given_s(self) -> float:
        """Seconds that a call which begins now may take.

        They end before the work that asks is cut off, so that it can say what did not answer.
        """
        return within(self._timeout_s)

    def fair_s(self) -> float:
        """Return `given_s`.

        Raises:
            ToolError: they are too few to begin what needs an answer.
        """
        if not self._is_fair(given_s := self.given_s):
            raise _OutOfTime(self.name)
        return given_s

    async def call(
        self,
        ask: Callable[[], Awaitable[_T]],
        *,
        retry: bool,
        verify_hint: str = "read what it is now",
        lasting: bool = False,
    ) -> _T:
        """Return what `ask` returns.

        Args:
            ask: makes one attempt; called again after a failed connection when `retry` is set. It
                gives up connecting after `connect_s`.
            retry: only for what changes nothing.
            verify_hint: how a caller learns whether a change was made that got no answer.
            lasting: what is asked for waits on purpose, such as a watch: it takes no place.

        Raises:
            BackendUnavailable: no answer in time, no connection, or the circuit is open. A change was
                not made then.
            OutcomeUnknown: a change was sent and got no answer, or one that tells nothing of it.
            ToolError: there is no place, or the work that asks has no time left. A change was not sent.
        """
        if lasting:
            return await self._guarded(ask, retry=retry, verify_hint=verify_hint, alone=False)
        await self._take_a_place()
        try:
            return await self._guarded(ask, retry=retry, verify_hint=verify_hint, alone=True)
        finally:
            self._places.release()

    async def _take_a_place(self) -> None:
        try:
            async with asyncio.timeout(within(_WAIT_FOR_A_PLACE_S)):
                await self._places.acquire()
        except TimeoutError:
            raise _Busy(self.name, self._at_once) from None

    async def _guarded(
        self, ask: Callable[[], Awaitable[_T]], *, retry: bool, verify_hint: str, alone: bool
    ) -> _T:
        given_s = self.given_s
        try:
            async with self.passing(alone=alone):
                given_s = self.given_s if retry else self.fair_s()
                try:
                    return await self._attempt(
                        ask, attempts=_READ_ATTEMPTS if retry else 1, given_s=given_s
                    )
                except TimeoutError as error:
                    if self._is_fair(given_s):
                        raise
                    raise _OutOfTime(self.name) from error
        except _CircuitOpen:
            raise
        except (aiohttp.ClientError, OSError, BackendUnavailable, AnswerTooLarge) as error:
            if not retry and not isinstance(error, _NO_CONNECTION):
                raise OutcomeUnknown(
                    self.name, _instead_of_an_answer(error, given_s), verify_hint=verify_hint
                ) from error
            if isinstance(error, ToolError):
                raise
            raise BackendUnavailable(self.name, _why(error, given_s)) from error

    @asynccontextmanager
    async def passing(self, *, alone: bool = True) -> AsyncIterator[None]:
        """Let a block ask that has deadlines and errors of its own, unless the circuit is open.

        Args:
            alone: where it is not known whether the backend is back, one such block asks at a time. One
                that lasts on purpose asks beside them.

        Raises:
            BackendUnavailable: the circuit is open. The block counts as failed where it raises one, or
                another error that tells of the backend.
        """
        tries = False
        try:
            async with AsyncExitStack() as stack:
                tries = await self._enter(stack, alone=alone)
                try:
                    yield
                except (asyncio.CancelledError, _OutOfTime):
                    # Neither a success nor a failure of the backend.
                    stack.pop_all()
                    raise
        except OpenedState as circuit:
            circuit.__traceback__ = None  # the library raises one object again and again
            wait_s = max(1, math.ceil(circuit.opened_at + OPEN_S - time.time()))
            raise _CircuitOpen(
                self.name, f"the last calls failed; tried again in {wait_s} s"
            ) from None
        finally:
            if tries:
                self._trial_over.set()

    async def _enter(self, stack: AsyncExitStack, *, alone: bool) -> bool:
        """Enter the circuit; tell whether this is the call that tries whether the backend is back."""
        breaker = await self._circuits.get_breaker(self.name)
        while True:
            await stack.enter_async_context(breaker)
            # The library lets everybody through then.
            if breaker.context.state != HALF_OPENED or not alone:
                return False
            if self._trial_over.is_set():
                self._trial_over.clear()
                return True
            stack.pop_all()
            try:
                async with asyncio.timeout(self.given_s):
                    await self._trial_over.wait()
            except TimeoutError:
                raise _CircuitOpen(
                    self.name, "the last calls failed; one is trying whether it is back"
                ) from None

    def _is_fair(self, given_s: float) -> bool:
        return given_s >= min(self._timeout_s, _FAIR_S)

    async def _attempt(
        self, ask: Callable[[], Awaitable[_T]], *, attempts: int, given_s: float
    ) -> _T:
        async with asyncio.timeout(given_s):
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(aiohttp.ClientConnectionError),
                stop=stop_after_attempt(attempts),
                wait=wait_random(0, _READ_PAUSE_S),
                reraise=True,
            ):
                with attempt:
                    return await ask()
        raise AssertionError("the last attempt returns or raises")


def _instead_of_an_answer(error: Exception, given_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"gave no answer within {_said(given_s)} s"
    if isinstance(error, ToolError):
        return f"gave no usable answer ({error})"
    return "broke off the connection"


def _why(error: Exception, given_s: float) -> str:
    for kind, words in _OUTAGES:
        if isinstance(error, kind):
            return words.format(given=_said(given_s), half=_said(given_s / 2))
    return type(error).__name__


def _said(seconds: float) -> str:
    return f"{round(seconds, 2):g}"


class HttpBackend:
    """A JSON API over HTTP(S).

    Args:
        name: how error messages call it, such as `Prometheus`.
        url: its base URL, without a path of an endpoint.
        tls: our client certificate and the CA of the backend's certificate.
        ca: only the CA of the backend's certificate, where it asks for none of ours; without `tls`
            and `ca` the system's authorities. These files are read again when they have changed.
        bearer: sent as `Authorization: Bearer`; its file is read when the backend starts.
        headers: sent with every call besides.
        timeout_s: deadline of one call in seconds, retries included.
        classify_error: returns the exception for a server error (HTTP status, parsed body) that is about
            one request and not about the backend, or None for an outage.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        tls: TlsSettings | None = None,
        ca: Path | None = None,
        bearer: Secret | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        classify_error: Callable[[int, Any], ToolError | None] = lambda _status, _body: None,
    ) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._tls = tls
        self._ca = ca
        self._bearer = bearer
        self._headers = dict(headers or {})
        self._classify_error = classify_error
        self._guard = Guard(name, timeout_s=timeout_s)
        self._context: RenewedContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool (nothing is sent yet).

        Raises:
            SettingsError: a file of the certificate, of the CA or of the bearer secret cannot be used.
        """
        if self._tls is not None:
            self._context = renewed_client_context(self._tls.ca, self._tls)
        elif self._ca is not None:
            self._context = renewed_client_context(self._ca)
        headers = dict(self._headers)
        if self._bearer is not None:
            headers["Authorization"] = f"Bearer {self._bearer.reveal()}"
        self._session = aiohttp.ClientSession(
            # The guard bounds the calls; what a call asks besides has its connection.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            middlewares=(one_request,),
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    @property
    def given_s(self) -> float:
        """Seconds that a call which begins now may take."""
        return self._guard.given_s

    async def get(
        self,
        path: str,
        params: _Params = (),
        *,
        headers: Mapping[str, str] | None = None,
        most_bytes: int = _MAX_ANSWER_BYTES,
        probe: Probe | None = None,
    ) -> tuple[int, Any]:
        """GET `path` and return the status and the parsed JSON body (None when it is not JSON).

        A failed connection is tried once more.

        Args:
            probe: what to ask where the answer is late, so that one request which asks too much does
                not count as an outage.

        Raises:
            BackendUnavailable: no answer in time, or a server error that is not excused.
            SlowAnswer: no answer before the deadline of the probe, which was answered.
            AnswerTooLarge: the answer has more than `most_bytes`.
            ToolError: the backend says that we ask too often, or what excuses a server error.
        """

        async def ask() -> tuple[int, Any]:
            exchange = self._exchange(
                "GET", path, most_bytes=most_bytes, params=params, headers=headers
            )
            return await (exchange if probe is None else self._probed(exchange, probe))

        return await self._guard.call(ask, retry=True)

    async def send(
        self,
        method: str,
        path: str,
        *,
        json_body: Any,
        headers: Mapping[str, str] | None = None,
        verify_hint: str,
    ) -> tuple[int, Any]:
        """Send JSON that changes something, once; return as `get`.

        Args:
            verify_hint: how a caller learns whether a change was made that got no answer.

        Raises:
            BackendUnavailable: it was not sent.
            OutcomeUnknown: no answer in time, or one that tells nothing.
            ToolError: the backend says that we ask too often.
        """
        return await self._guard.call(
            lambda: self._exchange(method, path, json=json_body, headers=headers),
            retry=False,
            verify_hint=verify_hint,
        )

    async def _probed(
        self, exchange: Coroutine[Any, Any, tuple[int, Any]], probe: Probe
    ) -> tuple[int, Any]:
        """Return the answer; where it is late, find out whether the backend is there."""
        asked = asyncio.create_task(exchange)
        tasks = [asked]
        try:
            await asyncio.wait(tasks, timeout=probe.after_s)
            if not asked.done():
                tasks.append(asyncio.create_task(self._exchange("GET", probe.path)))
                await asyncio.wait([asked], timeout=probe.deadline_s - probe.after_s)
            if asked.done():
                return asked.result()
            if not tasks[1].done():
                raise TimeoutError
            tasks[1].result()
            raise SlowAnswer(self.name, probe.deadline_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _exchange(
        self, method: str, path: str, *, most_bytes: int = _MAX_ANSWER_BYTES, **options: Any
    ) -> tuple[int, Any]:
        if self._session is None:
            raise RuntimeError(f"{self.name} was not started")
        async with self._session.request(
            method,
            self._url + path,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._guard.connect_s),
            # Connections of the pool that were made with another context are not used again.
            ssl=True if self._context is None else self._context(),
            **options,
        ) as response:
            body = await read_answer(response, self.name, most_bytes=most_bytes)
            if response.status == 429:
                wait = response.headers.get("Retry-After", "")
                when = f"in {wait} s" if _SECONDS.fullmatch(wait) else "later"
                raise ToolError(
                    f"{self.name} limits our calls (HTTP 429); try again {when}", retryable=True
                )
            try:
                document = await parsed(body)
            except (ValueError, RecursionError):
                document = None
            if response.status >= 500:
                raise self._classify_error(response.status, document) or BackendUnavailable(
                    self.name, f"it answered HTTP {response.status}"
                )
            return response.status, document


async def one_request(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep the client from sending a change twice: a middleware for its sessions.

    aiohttp repeats a PUT by itself when a connection of the pool breaks, although the first one may
    have been carried out.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method == "GET" or isinstance(error, _NO_CONNECTION):
            raise
        raise ConnectionBroken from error


async def read_answer(
    response: aiohttp.ClientResponse, backend: str, *, most_bytes: int = _MAX_ANSWER_BYTES
) -> bytes:
    """Return the whole body of an answer.

    Raises:
        AnswerTooLarge: it is larger than `most_bytes`.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            raise AnswerTooLarge(backend, most_bytes)
    return bytes(body)


async def parsed(body: bytes) -> Any:
    """Return the value of a JSON text; a long one is parsed beside the event loop.

    Raises:
        ValueError, RecursionError: it is not JSON, or too deep.
    """
    if len(body) <= _PARSED_AT_ONCE_BYTES:
        return json.loads(body)
    return await asyncio.get_running_loop().run_in_executor(_PARSERS, _parse_giving_way, body)


def _parse_giving_way(body: bytes) -> Any:
    # The parser in C keeps the interpreter to its end; only where it calls Python can others run.
    return json.loads(body, object_hook=lambda found: found)
