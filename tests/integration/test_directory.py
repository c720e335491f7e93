"""Sign-in with the password of a directory, on real OpenLDAP servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sansldap import ExtendedOperations, LDAPMessage, LDAPResultCode, LDAPServer, SearchRequest

from mcp_server.identity.directory import (
    Directory,
    DirectoryUnavailable,
    DirectoryUser,
    SignInRefused,
)
from tests.integration.directories import PASSWORD, Slapd, directory_settings
from tests.integration.fake_directory import (
    Answer,
    active_directory,
    serving,
    tls_of,
)
from tests.integration.servers import Authority

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def spare(workspace: Path, authority: Authority) -> Iterator[Slapd]:
    """A second server with the same users, for tests that stop and freeze it."""
    server = Slapd(workspace / "slapd2", authority)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def directory(
    slapd: Slapd, authority: Authority, tmp_path: Path
) -> AsyncIterator[Callable[..., Directory]]:
    """Make a directory of the shared server; what differs is given by name."""
    made: list[Directory] = []

    def make(*servers: str, **changes: Any) -> Directory:
        settings = directory_settings(
            *(servers or (slapd.url,)),
            ca=changes.pop("ca", authority.ca),
            secret=tmp_path / "bind_password",
            **changes,
        )
        made.append(Directory(settings))
        return made[-1]

    yield make
    for each in made:
        await each.stop()


async def _reason(directory: Directory, name: str, password: str = PASSWORD) -> str:
    with pytest.raises(SignInRefused) as refused:
        await directory.sign_in(name, password)
    return refused.value.reason


@pytest.mark.parametrize("way", ["url", "start_tls_url"])
async def test_a_user_signs_in_over_tls_and_over_start_tls(
    slapd: Slapd, directory: Callable[..., Directory], way: str
) -> None:
    user = await directory(getattr(slapd, way)).sign_in("alice", PASSWORD)

    assert user == DirectoryUser("alice", "default", ("everyone", "mcp-operators"))


async def test_a_user_has_one_id_by_whatever_name_it_signs_in(
    directory: Callable[..., Directory],
) -> None:
    signed_in = directory()

    for name in ("alice", "ALICE", "alice@example.test"):
        assert (await signed_in.sign_in(name, PASSWORD)).id == "alice"


async def test_users_that_may_not_sign_in_are_refused_late_and_for_their_reason(
    directory: Callable[..., Directory],
) -> None:
    """All refusals take a second: neither the time nor the error tells whether a user exists."""
    expected = {
        ("nobody", PASSWORD): "unknown_user",
        ("bob", "wrong"): "wrong_password",
        ("bob", PASSWORD + "\0"): "invalid_password",
        ("bob", "x" * 1025): "invalid_password",
        ("bob", ""): "invalid_password",
        ("nobody", ""): "invalid_password",
        ("", PASSWORD): "invalid_name",
        (" bob", PASSWORD): "invalid_name",
        ("bob\n", PASSWORD): "invalid_name",
        ("b" * 257, PASSWORD): "invalid_name",
        # Two users have this address.
        ("shared@example.test", PASSWORD): "unknown_user",
        ("nopassword", "anything"): "wrong_password",
        ("locked", PASSWORD): "wrong_password",
        ("resets", PASSWORD): "password_must_change",
        ("shadowed", PASSWORD): "account_expired",
        ("ad-disabled", PASSWORD): "account_disabled",
        ("ad-locked", PASSWORD): "account_locked",
        ("ad-expired", PASSWORD): "account_expired",
    }
    signed_in = directory()

    async def refused(name: str, password: str) -> tuple[str, float]:
        started = time.monotonic()
        return await _reason(signed_in, name, password), time.monotonic() - started

    answers = await asyncio.gather(*(refused(*each) for each in expected))

    assert [reason for reason, _ in answers] == list(expected.values())
    assert min(seconds for _, seconds in answers) >= 1.0


async def test_users_that_look_alike_may_sign_in(directory: Callable[..., Directory]) -> None:
    signed_in = directory()

    for name in ("lasting", "ad-user", "müller"):
        assert (await signed_in.sign_in(name, PASSWORD)).id == name


@pytest.mark.parametrize(
    "name",
    [
        "*",
        "a*",
        "alice)(uid=*",
        "*)(|(uid=*",
        "alice\\2a",
        "\\61lice",
        "alice,ou=people",
        "(uid=alice)",
    ],
)
async def test_no_character_of_a_name_has_a_meaning_in_a_search(
    directory: Callable[..., Directory], name: str
) -> None:
    assert await _reason(directory(), name) == "unknown_user"


async def test_a_user_whose_name_and_dn_hold_special_characters_signs_in(
    directory: Callable[..., Directory],
) -> None:
    user = await directory().sign_in("a*(b)\\c", PASSWORD)

    assert user == DirectoryUser("a*(b)\\c", "default", ("quoted",))


_GROUPS = {"base": "ou=groups,dc=example,dc=test"}


@pytest.mark.parametrize(
    ("name", "settings", "groups"),
    [
        ("bob", {}, ("everyone", "mcp-admins", "mcp-leads")),
        ("bob", {"nested": "none"}, ("mcp-leads",)),
        ("bob", {"max_depth": 2}, ("mcp-admins", "mcp-leads")),
        ("bob", {"prefix": "mcp-"}, ("mcp-admins", "mcp-leads")),
        ("carol", {}, ("circle-a", "circle-b")),
        ("alice", {"member": "memberUid"}, ("unix",)),
        ("lasting", {}, ()),
        ("bob", {"base": "ou=nowhere,dc=example,dc=test"}, ()),
    ],
)
async def test_groups_are_found_as_configured(
    directory: Callable[..., Directory],
    name: str,
    settings: dict[str, Any],
    groups: tuple[str, ...],
) -> None:
    user = await directory(groups={**_GROUPS, **settings}).sign_in(name, PASSWORD)

    assert user.groups == groups


async def test_the_tenant_is_an_attribute_of_the_user_and_without_it_nobody_signs_in(
    directory: Callable[..., Directory],
) -> None:
    signed_in = directory(tenant={"attribute": "o"})

    assert (await signed_in.sign_in("alice", PASSWORD)).tenant == "acme"
    assert await _reason(signed_in, "bob") == "no_tenant"


async def test_an_account_that_the_directory_locks_signs_in_again_after_the_lock(
    directory: Callable[..., Directory], slapd: Slapd
) -> None:
    signed_in = directory()
    await asyncio.gather(*(_reason(signed_in, "guessed", f"guess {n}") for n in range(3)))
    assert "pwdAccountLockedTime" in slapd.search(
        "uid=guessed,ou=people,dc=example,dc=test", "+", scope="base"
    )

    assert await _reason(signed_in, "guessed") == "wrong_password"
    await asyncio.sleep(2.5)  # pwdLockoutDuration

    assert (await signed_in.sign_in("guessed", PASSWORD)).id == "guessed"


# --- servers that fail ----------------------------------------------------------------------------


async def test_the_next_server_answers_while_the_first_is_stopped(
    directory: Callable[..., Directory], slapd: Slapd, spare: Slapd
) -> None:
    signed_in = directory(spare.url, slapd.url)
    assert (await signed_in.sign_in("alice", PASSWORD)).id == "alice"

    with spare.stopped():
        assert (await signed_in.sign_in("alice", PASSWORD)).id == "alice"
        assert await _reason(signed_in, "alice", "wrong") == "wrong_password"

    assert (await signed_in.sign_in("alice", PASSWORD)).id == "alice"


async def test_the_next_server_answers_while_the_first_is_slow_and_the_slow_one_is_tried_last(
    directory: Callable[..., Directory], slapd: Slapd, spare: Slapd
) -> None:
    signed_in = directory(spare.url, slapd.url, timeout_s=2)

    with spare.paused():
        first = await _seconds(signed_in.sign_in("alice", PASSWORD))
        second = await _seconds(signed_in.sign_in("alice", PASSWORD))

    assert first >= 2 > second


async def test_a_server_killed_in_the_middle_of_a_sign_in_is_replaced(
    directory: Callable[..., Directory], slapd: Slapd, spare: Slapd
) -> None:
    signed_in = directory(spare.url, slapd.url)
    assert await signed_in.sign_in("alice", PASSWORD)  # the connection is now kept
    spare.pause()
    login = asyncio.create_task(signed_in.sign_in("alice", PASSWORD))
    await asyncio.sleep(0.3)
    spare.kill()
    try:
        assert (await login).id == "alice"
    finally:
        spare.start()


async def test_without_any_server_nobody_can_be_judged_and_the_error_names_each(
    directory: Callable[..., Directory], spare: Slapd
) -> None:
    signed_in = directory(spare.url, spare.start_tls_url)

    with spare.stopped(), pytest.raises(DirectoryUnavailable) as error:
        await signed_in.sign_in("alice", PASSWORD)

    assert spare.url in str(error.value)
    assert spare.start_tls_url in str(error.value)
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize("way", ["url", "start_tls_url"])
async def test_a_certificate_of_another_authority_is_refused(
    directory: Callable[..., Directory], slapd: Slapd, tmp_path: Path, way: str
) -> None:
    with pytest.raises(DirectoryUnavailable, match="certificate verify failed"):
        await directory(getattr(slapd, way), ca=Authority(tmp_path).ca).sign_in("alice", PASSWORD)


async def test_a_certificate_for_another_name_is_refused(
    directory: Callable[..., Directory], slapd: Slapd
) -> None:
    with pytest.raises(
        DirectoryUnavailable, match="certificate verify failed: IP address mismatch"
    ):
        await directory(slapd.url.replace("127.0.0.1", "127.0.0.2")).sign_in("alice", PASSWORD)


async def test_a_wrong_password_of_the_service_is_told_in_the_log_only(
    directory: Callable[..., Directory],
) -> None:
    with pytest.raises(DirectoryUnavailable, match=r"identity\.directory\.bind_dn"):
        await directory(bind_dn="cn=other,dc=example,dc=test").sign_in("alice", PASSWORD)


async def test_sign_ins_beyond_the_pool_wait_for_their_turn_and_not_forever(
    directory: Callable[..., Directory], spare: Slapd
) -> None:
    signed_in = directory(spare.url, pool_size=1, timeout_s=1)
    both = asyncio.gather(*(signed_in.sign_in("alice", PASSWORD) for _ in range(2)))
    assert [user.id for user in await both] == ["alice", "alice"]

    with spare.paused():
        answers = await asyncio.gather(
            *(signed_in.sign_in("alice", PASSWORD) for _ in range(2)), return_exceptions=True
        )

    assert all(isinstance(answer, DirectoryUnavailable) for answer in answers)
    assert any("connections are in use" in str(answer) for answer in answers)


# --- servers that are not OpenLDAP, and answers that are none ---------------------------------------


async def _over(
    answer: Answer, directory: Callable[..., Directory], authority: Authority, **changes: Any
) -> DirectoryUser:
    tls = tls_of(authority.identity("fake-directory"))
    async with serving(answer, tls) as port:
        return await directory(f"ldaps://127.0.0.1:{port}", **{"timeout_s": 2, **changes}).sign_in(
            "alice", PASSWORD
        )


async def test_active_directory_finds_nested_groups_in_one_search_and_its_references_are_ignored(
    directory: Callable[..., Directory], authority: Authority
) -> None:
    groups = {**_GROUPS, "nested": "in_chain", "prefix": "mcp-"}

    user = await _over(active_directory(), directory, authority, groups=groups)

    assert user == DirectoryUser("alice", "default", ("mcp-0", "mcp-1"))


async def test_a_user_with_more_groups_than_a_token_holds_is_refused(
    directory: Callable[..., Directory], authority: Authority
) -> None:
    groups = {**_GROUPS, "nested": "in_chain"}

    for number in (900, 1001):
        with pytest.raises(SignInRefused, match="too_many_groups"):
            await _over(active_directory(groups=number), directory, authority, groups=groups)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (
            "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 52e, v4563",
            "wrong_password",
        ),
        (
            "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 533, v4563",
            "account_disabled",
        ),
        (
            "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 775, v4563",
            "account_locked",
        ),
        ("data 999", "wrong_password"),
        ("", "wrong_password"),
    ],
)
async def test_the_reason_of_active_directory_is_kept(
    directory: Callable[..., Directory], authority: Authority, says: str, reason: str
) -> None:
    answer = active_directory(code=LDAPResultCode.INVALID_CREDENTIALS, says=says)

    with pytest.raises(SignInRefused, match=reason):
        await _over(answer, directory, authority)


@pytest.mark.parametrize(
    "code", [LDAPResultCode.BUSY, LDAPResultCode.REFERRAL, LDAPResultCode.SASL_BIND_IN_PROGRESS]
)
async def test_a_server_that_does_not_decide_is_unavailable(
    directory: Callable[..., Directory], authority: Authority, code: LDAPResultCode
) -> None:
    with pytest.raises(DirectoryUnavailable, match="the bind of a user failed"):
        await _over(active_directory(code=code), directory, authority)


async def test_a_search_that_is_referred_elsewhere_is_not_followed(
    directory: Callable[..., Directory], authority: Authority
) -> None:
    def answer(session: LDAPServer, message: LDAPMessage) -> None:
        if isinstance(message, SearchRequest):
            session.search_result_done(message.message_id, result_code=LDAPResultCode.REFERRAL)
        else:
            active_directory()(session, message)

    with pytest.raises(DirectoryUnavailable, match="referral"):
        await _over(answer, directory, authority)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x30\x84\xff\xff\xff\xff",  # 4 GiB
        b"\x30\x80\x00\x00",  # of no length
        b"\x30\x05\x02\x01\x01\x61\x7f",  # a part that is longer than the whole
        b"\x30\x0c\x02\x01\x63\x61\x07\x0a\x01\x00\x04\x00\x04\x00",  # to a request that was not made
        b"",
    ],
)
async def test_an_answer_that_is_not_ldap_is_none(
    directory: Callable[..., Directory], authority: Authority, raw: bytes
) -> None:
    with pytest.raises(DirectoryUnavailable):
        await _over(lambda _session, _message: raw, directory, authority, timeout_s=1)


async def test_a_search_without_end_is_cut_off(
    directory: Callable[..., Directory], authority: Authority
) -> None:
    def answer(session: LDAPServer, message: LDAPMessage) -> None:
        if isinstance(message, SearchRequest):
            for _ in range(5000):
                session.search_result_reference(
                    message.message_id, ["ldap://elsewhere" + "x" * 1000]
                )
        else:
            active_directory()(session, message)

    with pytest.raises(DirectoryUnavailable, match="a search returns over"):
        await _over(answer, directory, authority, timeout_s=20)


async def test_an_answer_put_in_before_tls_has_started_is_not_taken_for_the_servers(
    directory: Callable[..., Directory], authority: Authority
) -> None:
    """What a man in the middle adds to the answer to StartTLS would be the answer to the bind."""
    tls = tls_of(authority.identity("fake-directory"))
    bind_accepted = b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00"
    over_tls = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = LDAPServer()
        (message,) = session.receive(await reader.read(65536))
        session.extended_response(message.message_id, name=ExtendedOperations.LDAP_START_TLS.value)
        writer.write(session.data_to_send() + bind_accepted)
        await writer.start_tls(tls)
        with suppress(OSError):
            over_tls.extend(await reader.read(65536))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DirectoryUnavailable, match="before TLS had started"):
            await directory(f"ldap://127.0.0.1:{port}").sign_in("alice", PASSWORD)
        await asyncio.sleep(0.1)

    assert not over_tls


async def test_a_server_that_refuses_start_tls_gets_no_password(
    directory: Callable[..., Directory],
) -> None:
    asked: list[LDAPMessage] = []

    def answer(session: LDAPServer, message: LDAPMessage) -> None:
        asked.append(message)
        session.extended_response(message.message_id, result_code=LDAPResultCode.UNAVAILABLE)

    async with serving(answer, None) as port:
        with pytest.raises(DirectoryUnavailable, match="refuses StartTLS"):
            await directory(f"ldap://127.0.0.1:{port}").sign_in("alice", PASSWORD)

    assert len(asked) == 1


async def _seconds(work: Any) -> float:
    started = time.monotonic()
    await work
    return time.monotonic() - started
