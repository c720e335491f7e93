"""No secret is written down, and no row grows without bound."""

from __future__ import annotations

import json
import string
import time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mcp_server.redaction import (
    ARGUMENTS_LIMIT,
    CUT_KEY,
    REDACTED,
    LineRedactor,
    is_secret_key,
    redact_arguments,
    redact_json,
    redact_text,
    without_secrets,
)
from mcp_server.tools.text import table

_SECRET = "hunter2-Zq9"

_NAMES = (
    "api_key",
    "password",
    "token",
    "secret",
    "authorization",
    "private_key",
    "client_secret",
    "secret_key",
    "passphrase",
    "cookie",
    "credentials",
    "kubeconfig",
)

_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXdpdGgtLV8"
_PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIabc+/=\n-----END EC PRIVATE KEY-----"

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=12,
)


@st.composite
def _spellings(draw: st.DrawFn) -> str:
    """A secret's name in any case, with any separators, with something before it."""
    name = draw(st.sampled_from(_NAMES))
    separators = st.sampled_from(["", "_", "-", ".", " "])
    words = [word.capitalize() if draw(st.booleans()) else word for word in name.split("_")]
    spelt = draw(separators).join(words)
    prefix = draw(st.sampled_from(["", "db", "X-", "my_", "OLD "]))
    return prefix + (spelt.upper() if draw(st.booleans()) else spelt)


def _stored(arguments: dict[str, Any]) -> Any:
    return json.loads(redact_arguments(arguments).json)


@given(key=_spellings(), path=st.lists(st.sampled_from(["list", "object"]), max_size=8))
def test_a_value_under_a_secret_name_is_redacted_at_any_depth(key: str, path: list[str]) -> None:
    value: Any = {key: _SECRET, "kept": 1}
    for step in path:
        value = [value] if step == "list" else {"inner": value}

    stored = redact_arguments({"argument": value}).json

    assert _SECRET not in stored
    assert '"kept":1' in stored


@given(key=_spellings(), value=_values)
def test_a_value_under_a_secret_name_is_redacted_whatever_its_type(key: str, value: Any) -> None:
    assert _stored({key: value}) == {redact_text(key): REDACTED}


@given(value=st.dictionaries(st.text(), _values, max_size=8))
def test_what_is_stored_is_json_within_the_limit_that_postgresql_takes(
    value: dict[str, Any],
) -> None:
    stored = redact_arguments(value).json

    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert len(stored.encode("utf-8")) <= ARGUMENTS_LIMIT
    assert isinstance(json.loads(stored, parse_constant=refuse), dict)
    assert "\\u0000" not in stored.replace("\\\\", "")


@given(value=st.dictionaries(st.text(), _values, max_size=8))
def test_redacting_twice_changes_nothing_more(value: dict[str, Any]) -> None:
    once = _stored(value)

    assert _stored(once) == once


@given(
    st.dictionaries(
        st.text(alphabet="abcxyz", min_size=1, max_size=3), st.integers(0, 9) | st.booleans()
    )
)
def test_harmless_values_stay_as_they_are(value: dict[str, Any]) -> None:
    assume(not any(is_secret_key(key) for key in value))

    assert _stored(value) == value


@pytest.mark.parametrize(
    "text",
    [
        f"see {_JWT} there",
        f"Bearer {_JWT}",
        _JWT.rpartition(".")[0],
        f"key: {_PEM}",
        _PEM[:-10],
        _PEM.replace("EC ", ""),
        _PEM.replace("EC ", "OPENSSH "),
        "curl -H 'Authorization: Bearer MHcCAQEEIabc'",
        "authorization=Basic MHcCAQEEIabc",
        '{"Authorization": "Basic MHcCAQEEIabc"}',
        "BEARER MHcCAQEEIabc",
        "postgresql://user:MHcCAQEEIabc@db1/mcp",
        "password=MHcCAQEEIabc",
        "host=db1 password = 'MHcCAQEEIabc with space' user=x",
        'client_secret: "MHcCAQEEIabc"',
        '{"api-key": "MHcCAQEEIabc"}',
        "X-Api-Key: MHcCAQEEIabc",
        "AKIAMHCCAQEEIABCDEFG",
        "ghp_MHcCAQEEIabcMHcCAQEEIabcMHcCAQEEIabc1234",
    ],
)
def test_text_with_the_shape_of_a_secret_is_redacted(text: str) -> None:
    clean = redact_text(text)

    assert REDACTED in clean
    assert not any(part in clean for part in ("MHcCAQEEIabc", "MHCCAQEEIABC", "eyJzdWIi"))


@pytest.mark.parametrize(
    "text",
    [
        "up",
        'sum(rate(http_requests_total{job="api", code=~"5.."}[5m])) by (instance)',
        "Basic authentication is on",
        "the bearer of this",
        "https://mon1.lab.internal:9090/graph",
        "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
        "10.91.0.21",
        "Grüße, 東京 🙂",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        # A flag and its value, as people and process lists write them.
        ("mysql --password hunter2 -h db1", "mysql --password [redacted] -h db1"),
        ("x --api-key 'hun ter2' y", "x --api-key [redacted] y"),
        ('x --client-secret\t"hun ter2" y', "x --client-secret\t[redacted] y"),
        ("x --redis.dbPassword hunter2", "x --redis.dbPassword [redacted]"),
        ("x -token hunter2", "x -token [redacted]"),
        ("x --password hunter2; ls", "x --password [redacted]; ls"),
        ('["--password", "hunter2", "-v"]', '["--password", [redacted], "-v"]'),
        ("['--token','hunter2']", "['--token',[redacted]]"),
        ('[\n  "--token",\n  "hunter2"\n]', '[\n  "--token",\n  [redacted]\n]'),
        # The password of an address reaches to the last @ of its host's part.
        ("mongodb://u:p@ss@host/db", "mongodb://u:[redacted]@host/db"),
        ("mongodb://u:p@ss@h1:27017,h2:27017/db", "mongodb://u:[redacted]@h1:27017,h2:27017/db"),
        ("https://u:p@a/b?mail=x@y", "https://u:[redacted]@a/b?mail=x@y"),
        ("https://u:p@a?mail=x@y", "https://u:[redacted]@a?mail=x@y"),
        ("https://u:p@a#x@y", "https://u:[redacted]@a#x@y"),
        ("https://u:p@a, bob@b", "https://u:[redacted]@a, bob@b"),
        ("https://bob@b:hunter2@host/", "https://bob@b:[redacted]@host/"),
        ("redis://:hunter2@host/0", "redis://:[redacted]@host/0"),
        ("https://u:p#s?s@host/", "https://u:[redacted]@host/"),
        ('{"a":"http://u:p@h","b":"x@y"}', '{"a":"http://u:[redacted]@h","b":"x@y"}'),
        # Credentials that announce themselves.
        ("sent Basic dXNlcjpwYXNz to it", "sent Basic [redacted] to it"),
        ("basic YWxpY2U6aHVudGVyMg==", "basic [redacted]"),
        ("AIza" + "Sy_x-9" * 6, REDACTED),
        *((f"{kind}_{'a1B2' * 6}", REDACTED) for kind in ("sk_live", "sk_test", "rk_live")),
        ("npm_" + "a1B2c3" * 6, REDACTED),
        ("dckr_pat_" + "a1-B2_c3d" * 3, REDACTED),
        ("eyJhbGciOiJ9.e30.x and xeyJhbGciOiJ9.e30.x", f"{REDACTED} and xeyJhbGciOiJ9.e30.x"),
    ],
)
def test_only_the_secret_part_of_a_text_is_replaced(text: str, clean: str) -> None:
    assert redact_text(text) == clean
    assert redact_text(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "the password is wrong",
        "no token given - secret not found",
        "auth-token expired, non-secret value",
        "--password-file /x --token-ttl 5m --max-tokens 100",
        "--password --user bob",
        'args: ["--token", "--verbose"]',
        "give it with --password",
        "https://host/users/bob@example.com",
        "https://host:8080/users/bob@example.com",
        "https://host:8080?user=bob@example.com",
        "https://host:8080#bob@example.com",
        "https://bob@host:8080/",
        '{"url":"https://host:8080","mail":"bob@example.com"}',
        '{"url":"https://host","mail":"bob@example.com"}',
        "Basic authentication is on, basic utilisation, BASIC AUTHENTICATION",
        "basic read/write access over HTTP/2",
        "npm_config_registry npm_package_dependencies_something",
        "sk_liver npm_run AIzabella dckr_pat_",
    ],
)
def test_text_that_only_speaks_of_secrets_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text


_DIGEST = "sha256:" + "0a1b" * 16


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        # A file of `grep`'s output looks the same, so the tag of such an image is not shown.
        ("ghcr.io/team/auth-token:1.4.2", "ghcr.io/team/auth-token:[redacted]"),
        ("team/api:1.4.2", "team/api:1.4.2"),
        ("ghcr.io/team/token-service:1.4.2", "ghcr.io/team/token-service:1.4.2"),
        (f"ghcr.io/team/auth-token@{_DIGEST}", f"ghcr.io/team/auth-token@{_DIGEST}"),
    ],
)
def test_an_image_loses_its_tag_only_when_its_name_ends_like_a_secret(
    text: str, clean: str
) -> None:
    assert redact_text(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "open /run/secrets/db-password: no such file or directory",
        "open /var/run/secrets/kubernetes.io/serviceaccount/token: permission denied",
        "env[1].valueFrom.secretKeyRef: secret: Required value",
        "password: must be at least 12 characters",
        "token: is expired",
    ],
)
def test_an_error_about_a_file_or_field_named_like_a_secret_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        # As `grep` and `head` print the contents of files.
        ("/run/secrets/token:hunter2", "/run/secrets/token:[redacted]"),
        ("/run/secrets/db-password:1.4.2", "/run/secrets/db-password:[redacted]"),
        ("secrets/db-password:hunter2", "secrets/db-password:[redacted]"),
        ("secrets/db-password:1234", "secrets/db-password:[redacted]"),
        ("secrets/db-password:20260131", "secrets/db-password:[redacted]"),
        ("secrets/password:latest", "secrets/password:[redacted]"),
        ("secrets/api-token:3f2c1ab", "secrets/api-token:[redacted]"),
        ("./secrets/token:1.4.2", "./secrets/token:[redacted]"),
        # A host alone does not make an image.
        ("git.example.com/a/password:hunter2", "git.example.com/a/password:[redacted]"),
        (f"ghcr.io/a/token:{'3f2c1abd' * 4}", "ghcr.io/a/token:[redacted]"),
        (f"ghcr.io/a/token:{'3f2c1abd' * 8}", "ghcr.io/a/token:[redacted]"),
        ("https://ghcr.io/a/token:1.4.2", "https://ghcr.io/a/token:[redacted]"),
        # Neither do assignments.
        ("username/password:1234", "username/password:[redacted]"),
        ("username/password: latest", "username/password: [redacted]"),
        ("team/auth-token: 1.4.2", "team/auth-token: [redacted]"),
        ("team/auth-token=1.4.2", "team/auth-token=[redacted]"),
        ('team/auth-token:"1.4.2"', "team/auth-token:[redacted]"),
        ('"team/auth-token":1.4.2', '"team/auth-token":[redacted]'),
        ("X-Auth-Token:1.4.2", "X-Auth-Token:[redacted]"),
        ("token:1.4.2", "token:[redacted]"),
        ("auth-token:1.4", "auth-token:[redacted]"),
        ("auth-token:latest", "auth-token:[redacted]"),
        ("auth-token:v2", "auth-token:[redacted]"),
        # Words that only begin like an error.
        ("password: notfound", "password: [redacted]"),
        ("password: permission", "password: [redacted]"),
        ('password: "not found"', "password: [redacted]"),
        ("password=permission denied", "password=[redacted] denied"),
    ],
)
def test_a_value_that_is_no_error_is_masked(text: str, clean: str) -> None:
    assert redact_text(text) == clean


@pytest.mark.parametrize("key", ["query", "namespace", "asset_type", "author", "passage", "spin"])
def test_ordinary_names_are_not_secret(key: str) -> None:
    assert not is_secret_key(key)


def test_a_value_beside_a_secret_name_is_redacted() -> None:
    environment = [{"name": "DB_PASSWORD", "value": "x1"}, {"name": "HOME", "value": "/root"}]

    assert _stored({"environment": environment})["environment"] == [
        {"name": "DB_PASSWORD", "value": REDACTED},
        {"name": "HOME", "value": "/root"},
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"a": "x" * 1_000_000},
        {"a": "\x01" * 1_000_000},
        {"a": "🙂" * 100_000},
        {"a": list(range(100_000))},
        {str(number): number for number in range(100_000)},
        {"a": [{"b": "c" * 100}] * 10_000},
        {"k" * 100_000: 1},
    ],
    ids=["text", "control characters", "emoji", "list", "keys", "objects", "key"],
)
def test_long_arguments_are_cut_and_marked(value: dict[str, Any]) -> None:
    stored = redact_arguments(value).json

    assert len(stored.encode()) <= ARGUMENTS_LIMIT
    assert CUT_KEY in json.loads(stored)


def test_cut_text_uses_most_of_the_room() -> None:
    assert len(redact_arguments({"a": "x" * 20_000}).json) > ARGUMENTS_LIMIT * 0.8


def test_arguments_that_fit_are_not_marked() -> None:
    value = {"a": "x" * (ARGUMENTS_LIMIT - 300)}

    assert _stored(value) == value


def test_deep_nesting_ends_with_a_mark_and_spares_the_rest() -> None:
    deep: Any = "bottom"
    for _ in range(200):
        deep = [deep]

    stored = _stored({"deep": deep, "rest": 1})

    assert "[too deep]" in json.dumps(stored)
    assert stored["rest"] == 1
    assert CUT_KEY in stored


def test_what_json_does_not_know_is_named_by_its_type() -> None:
    assert _stored({"a": {1, 2}, "b": float("nan"), "c": 1 << 300}) == {
        "a": "[set]",
        "b": "nan",
        "c": "[int]",
    }


@given(value=st.dictionaries(st.text(), _values, max_size=8))
def test_what_is_judged_stands_as_it_runs_or_is_withheld_by_name(value: dict[str, Any]) -> None:
    judged, withheld = without_secrets(value)

    def compare(here: Any, there: Any, at: str) -> None:
        if at in withheld:
            assert there is None
        elif isinstance(here, dict):
            assert list(here) == list(there)
            for key in here:
                compare(here[key], there[key], f"{at}/{key.replace('~', '~0').replace('/', '~1')}")
        elif isinstance(here, list):
            assert len(here) == len(there)
            for number, item in enumerate(here):
                compare(item, there[number], f"{at}/{number}")
        else:
            assert (here, type(here)) == (there, type(there))
            assert not isinstance(there, str) or redact_text(there) == there

    if "" not in withheld:
        compare(value, judged, "")


@pytest.mark.parametrize(
    ("arguments", "judged", "withheld"),
    [
        ({"query": "up", "limit": 5}, {"query": "up", "limit": 5}, ()),
        ({"query": "authorization:x or payroll"}, {"query": None}, ("/query",)),
        ({"api_key": {"a": 1}, "id": 1}, {"api_key": None, "id": 1}, ("/api_key",)),
        (
            {"panels": [{"query": "up"}, {"query": "token=abcdef"}]},
            {"panels": [{"query": "up"}, {"query": None}]},
            ("/panels/1/query",),
        ),
        (
            {"env": [{"name": "DB_PASSWORD", "value": "x"}]},
            {"env": [{"name": "DB_PASSWORD", "value": None}]},
            ("/env/0/value",),
        ),
        ({"a/b~c": "pay\0roll"}, {"a/b~c": None}, ("/a~1b~0c",)),
        ({"labels": {"password=hunter2": 1}}, {"labels": None}, ("/labels",)),
        ({"size": float("nan")}, {"size": None}, ("/size",)),
    ],
)
def test_what_is_withheld_is_named_by_its_place(
    arguments: dict[str, Any], judged: dict[str, Any], withheld: tuple[str, ...]
) -> None:
    assert without_secrets(arguments) == (judged, withheld)


def test_what_is_too_deep_to_be_searched_is_withheld() -> None:
    deep: Any = "bottom"
    for _ in range(200):
        deep = [deep]

    judged, (place,) = without_secrets({"deep": deep, "rest": 1})

    assert place.startswith("/deep/0/0/")
    assert judged["rest"] == 1


@pytest.mark.parametrize(
    "hostile",
    [
        "eyJ" * 100_000,
        "eyJaaaaaa." * 30_000,
        "-----BEGIN PRIVATE KEY-----" * 10_000,
        "password" + " " * 300_000,
        "bearer " * 40_000,
        "://a:" * 60_000,
        'secret="' * 40_000,
        "authorization:" * 20_000,
        "--a-password " * 20_000,
        "--" + "a" * 300_000,
        " -a.a" * 60_000,
        '--password",' * 25_000,
        "://u:" + "@" * 300_000,
        "Basic " + "a" * 300_000,
        "Basic " * 50_000,
        string.ascii_letters * 6_000,
        "a/token:1.2.3 " * 20_000,
        "a/" * 100 + "token:1.2.3 " * 20_000,
        ("a." * 120 + "token:1 ") * 1_200,
        ("=a" * 120 + "/token:1 ") * 1_200,
        ("a-" * 120 + "/token:1.1 ") * 1_200,
        "token: not " * 25_000,
    ],
    ids=lambda text: text[:16],
)
def test_hostile_text_costs_little_time(hostile: str) -> None:
    """Of the processor, so that it does not matter what else runs; what is not linear takes minutes."""
    started = time.process_time()

    redact_text(hostile)

    assert time.process_time() - started < 5


def _cost(text: str) -> float:
    """Return the least time of the processor of three tries, in seconds."""
    costs = []
    for _ in range(3):
        started = time.process_time()
        redact_text(text)
        costs.append(time.process_time() - started)
    return min(costs)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the texts that are searched for secrets."""
    lengths: list[int] = []

    def counted(text: str) -> str:
        lengths.append(len(text))
        return redact_text(text)

    monkeypatch.setattr("mcp_server.redaction.arguments.redact_text", counted)
    return lengths


_LARGE = {
    "one": {"value": "token:1 " * 100_000},
    "many": {"matchers": ["token:1 " * 5_000] * 20},
    "keys": {f"token:1 {number}": "token:1" for number in range(50_000)},
    "key": {"token:1 " * 100_000: "up"},
    "list": {"values": ["token:1"] * 50_000},
    # Each is replaced by less than it was.
    "shrinking": {"values": ["token=" + "a" * 10_000] * 50},
    "names of values": {"labels": {"name": "a" * 500_000, "value": 1, "VALUE": 2}},
}


@pytest.mark.parametrize("arguments", _LARGE.values(), ids=_LARGE)
def test_large_arguments_are_searched_up_to_a_limit(
    arguments: dict[str, Any], searched: list[int]
) -> None:
    limit = 64 * 1024

    judged, withheld = without_secrets(arguments)
    assert withheld
    assert len(json.dumps(judged)) <= limit
    assert sum(searched) <= limit

    searched.clear()
    stored = redact_arguments(arguments).json
    assert len(stored.encode()) <= ARGUMENTS_LIMIT
    assert sum(searched) <= limit


def test_a_large_argument_is_withheld_and_hides_none_that_is_shorter() -> None:
    large = "a" * 70_000

    judged, withheld = without_secrets(
        {"first": large, "namespace": "prod", "panels": [{"query": large}, "up"], "replicas": 3}
    )

    assert judged == {
        "first": None,
        "namespace": "prod",
        "panels": [{"query": None}, "up"],
        "replicas": 3,
    }
    assert withheld == ("/first", "/panels/0/query")


def test_of_texts_that_are_too_much_together_the_longest_are_withheld() -> None:
    texts = ["a" * 30_000, "b" * 30_001, "c" * 5_000, "d" * 30_001]

    judged, withheld = without_secrets({"texts": texts})

    assert judged == {"texts": [texts[0], None, texts[2], None]}
    assert withheld == ("/texts/1", "/texts/3")


def test_more_items_than_can_be_searched_are_withheld_as_a_list() -> None:
    judged = without_secrets({"values": [""] * 5_000, "replicas": 3})

    assert judged == ({"values": None, "replicas": 3}, ("/values",))


def test_a_secret_at_the_end_of_what_is_searched_is_not_kept() -> None:
    key = "-----BEGIN PRIVATE KEY-----" + "a" * 65_000 + "-----END PRIVATE KEY-----"
    cut = key + " postgresql://app:" + "s" * 700 + "@db"

    stored = redact_arguments({"text": cut}).json

    assert "sss" not in stored
    assert CUT_KEY in json.loads(stored)


def test_keys_of_a_result_that_look_like_secrets_are_masked_and_stay_distinct() -> None:
    first, second = "ghp_" + "a" * 24, "ghp_" + "b" * 24

    shown = redact_json({"groups": {first: 1, second: 2, "Bearer abcdefgh": 3, "prod": 4}})

    assert shown == {
        "groups": {REDACTED: 1, f"{REDACTED} (2)": 2, f"Bearer {REDACTED}": 3, "prod": 4}
    }


@pytest.mark.parametrize("labels", ["labels", "annotations"])
def test_labels_under_the_name_of_a_secret_are_masked_in_results(labels: str) -> None:
    shown = redact_json({"rows": [{labels: {"password": "hunter2", "app": "web"}}]})

    assert shown == {"rows": [{labels: {"password": REDACTED, "app": "web"}}]}


@pytest.mark.parametrize(
    "labels",
    [
        # What tells about a secret, as exporters name it.
        {"secret_name": "shop-tls", "secret_namespace": "prod", "secret_key": "tls.crt"},
        {"host": "shop.example.com", "secret_name": "shop-tls"},
        {"namespace": "prod", "secret": "shop-tls", "type": "kubernetes.io/tls"},
        {"namespace": "prod", "secret": "sh.helm.release.v1.shop.v3"},
        {"gen_ai_token_type": "input"},
        {"secretName": "shop-tls", "secret-type": "tls", "tokenKind": "bearer"},
        {"password_file": "/run/secrets/db", "token_ttl": "5m", "credential_provider": "vault"},
        {"cert-manager.io/secret-name": "shop-tls"},
    ],
)
def test_labels_that_tell_about_a_secret_are_kept(labels: dict[str, str]) -> None:
    assert redact_json({"labels": labels}) == {"labels": labels}
    text = table([{"labels": labels}], ["labels"])
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("labels", "hidden"),
    [
        ({"secret": "hunter2"}, "secret"),
        ({"namespace": "prod", "secret": "Hunter2"}, "secret"),
        ({"namespace": "prod", "secret": "hunter2!"}, "secret"),
        ({"namespace": "prod", "secret": "4711"}, "secret"),
        ({"namespace": "prod", "secret": "9f86d081884c7d659a2feaa0c55ad015"}, "secret"),
        ({"namespace": "prod", "client_secret": "shop-tls"}, "client_secret"),
        ({"namespace": "prod", "token": "shop-tls"}, "token"),
        ({"secret_key": "tls.crt"}, "secret_key"),
        ({"secret_name": "s3", "secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfi"}, "secret_key"),
        ({"secret_name": "s3", "secret_key": "wJalrXUtnFEMIK7MDENGbPxRfiCY"}, "secret_key"),
        ({"secret_name": "s3", "access_key": "tls.crt"}, "access_key"),
        ({"secret_id": "9f86d081"}, "secret_id"),
        ({"vault_token": "s.abc"}, "vault_token"),
        ({"name_secret": "shop-tls"}, "name_secret"),
    ],
)
def test_labels_that_hold_a_secret_are_masked(labels: dict[str, str], hidden: str) -> None:
    shown = redact_json({"labels": labels})["labels"]

    assert shown == {**labels, hidden: REDACTED}
    assert labels[hidden] not in redact_text(table([{"labels": shown}], ["labels"]))


def test_only_labels_are_written_without_the_mark_of_an_assignment() -> None:
    row = {"secret": "hunter2", "namespace": "prod"}

    assert "hunter2" not in redact_text(table([{"before": row}], ["before"]))


@pytest.mark.parametrize("key", ["secret_name", "secret_namespace", "gen_ai_token_type"])
def test_arguments_are_masked_under_such_names_all_the_same(key: str) -> None:
    assert is_secret_key(key)


def test_a_result_keeps_honest_values_under_names_that_sound_secret() -> None:
    assert redact_json({"token_reviews_total": "12"}) == {"token_reviews_total": "12"}


_KEY_BODY = [f"{'MIIEvQ/Ab1' * 6}+{n:03}" for n in range(4)]
_KEY = ["-----BEGIN RSA PRIVATE KEY-----", *_KEY_BODY, "dG9v", "-----END RSA PRIVATE KEY-----"]
_DIGEST = "pulled " + "ab12" * 16


def _redacted(lines: list[str]) -> list[str]:
    redactor = LineRedactor()
    return [seen for line in lines for seen in redactor.feed(line)] + list(redactor.rest())


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        (["a", "password=x", "b"], ["a", f"password={REDACTED}", "b"]),
        (["a", *_KEY, "b"], ["a", *[REDACTED] * len(_KEY), "b"]),
        ([*_KEY, "b"], [*[REDACTED] * len(_KEY), "b"]),
        # What the end of a log begins with: a part of a key, or what only looks like one.
        ([*_KEY[3:], "b"], [*[REDACTED] * len(_KEY[3:]), "b"]),
        ([_KEY[-2], _KEY[-1], "b"], [REDACTED, REDACTED, "b"]),
        (_KEY[2:4], [REDACTED] * 2),
        ([f"12:00:01 INFO {line}" for line in _KEY[1:]], [REDACTED] * len(_KEY[1:])),
        (["started", "ready", "GET /health 200 -"], ["started", "ready", "GET /health 200 -"]),
        (["started", "ready"], ["started", "ready"]),
        ([_DIGEST, _DIGEST], [_DIGEST, _DIGEST]),
        ([_DIGEST, *_KEY], [_DIGEST, *[REDACTED] * len(_KEY)]),
        (
            ["x -----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----", "b"],
            [f"x {REDACTED}", "b"],
        ),
        ([], []),
    ],
)
def test_a_key_of_several_lines_is_masked_line_by_line(lines: list[str], seen: list[str]) -> None:
    assert _redacted(lines) == seen


def test_a_key_that_does_not_end_masks_so_many_lines_as_a_key_may_have() -> None:
    seen = _redacted(["it wants -----BEGIN PRIVATE KEY-----", *["a line"] * 200])

    assert seen.count(REDACTED) == 128
    assert seen[-1] == "a line"


def test_lines_are_neither_lost_nor_added() -> None:
    assert len(_redacted(["dG9v"] * 500)) == 500
