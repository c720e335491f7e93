"""The configuration: what is accepted, and how faults are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mcp_server.settings import Secret, Settings, SettingsError, load_settings

COMPANY = {
    "name": "company",
    "issuer": "https://idp.example.com",
    "audience": "https://mcp.example.com/mcp",
    "algorithms": ["RS256"],
}
ASKED = {
    **COMPANY,
    "introspection": {
        "url": "https://idp.example.com/introspect",
        "client_id": "mcp",
        "client_secret": {"file": "/s"},
    },
}
JWT = {"secret": {"file": "/s"}, "issuer": "i", "audience": "a"}
MINIMAL: dict[str, Any] = {
    "node": "mcp1",
    "public_url": "https://mcp.example.com",
    "identity": {"jwt": JWT},
    "counters": {"url": "redis://localhost"},
    "database": {"host": "localhost"},
}


def write(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_the_least_configuration_has_safe_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, MINIMAL))

    assert settings.listen.host == "127.0.0.1"
    assert settings.public_origin == "https://mcp.example.com"
    assert settings.tools.monitoring is None
    assert settings.identity.jwt.algorithms == ("HS256",)
    assert settings.identity.jwt.max_lifetime_s == 3600


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodes": "x"}, "nodes is not a setting; did you mean node?"),
        ({"listen": {"prot": 1}}, "listen.prot is not a setting; did you mean port?"),
        ({"listen": {"zzz": 1}}, "listen.zzz is not a setting; known here: allowed_peers, "),
        ({"listen": {"port": 70000}}, "listen.port: Input should be less than or equal to 65535"),
        ({"listen": {"host": "mcp1"}}, "listen.host: "),
        ({"listen": {"allowed_peers": ["nginx.test"]}}, "tls and allowed_peers belong together"),
        (
            {"telemetry": {"tls": {"cert": "/c", "key": "/k", "ca": "/a"}}},
            "tls and allowed_peers belong together: name the peers",
        ),
        (
            {"listen": {"client_certificates": True}},
            "client_certificates needs tls and trusted_proxies",
        ),
        (
            {"identity": {"jwt": JWT, "client_certificates": {}}},
            "identity.client_certificates needs listen.client_certificates: true",
        ),
        ({"public_url": "not a url"}, "public_url: "),
        (
            {"identity": {"jwt": {**JWT, "max_lifetime_s": 59}}},
            "identity.jwt.max_lifetime_s: Input should be greater than or equal to 60",
        ),
        (
            {"identity": {"jwt": {**JWT, "max_lifetime_s": 86401}}},
            "identity.jwt.max_lifetime_s: Input should be less than or equal to 86400",
        ),
        *(
            ({"identity": {"jwt": JWT, "issuers": [{**COMPANY, **changes}]}}, said)
            for changes, said in (
                ({"name": "Company"}, "issuers.0.name: String should match pattern"),
                ({"name": "shared-secret"}, "each needs a name of its own"),
                ({"name": "directory"}, "each needs a name of its own"),
                ({"issuer": "i"}, "issuers.0.issuer: "),
                ({"issuer": "http://idp.example.com"}, "issuer must begin with https://"),
                ({"algorithms": []}, "needs algorithms, such as [RS256], or introspection"),
                ({"algorithms": ["HS256"]}, "issuers.0.algorithms.0: Input should be 'RS256'"),
                ({"algorithms": ["none"]}, "issuers.0.algorithms.0: Input should be 'RS256'"),
                ({"jwks_uri": "http://idp.example.com/jwks"}, "jwks_uri must begin with https://"),
                ({"tenant": "a", "claims": {"tenant": "t"}}, "tenant and claims.tenant exclude"),
                ({"claims": {"roles": []}}, "issuers.0.claims.roles: "),
                ({"claims": {"roles": "a..b"}}, "issuers.0.claims.roles.1: "),
                ({"keys_max_age_s": 1}, "issuers.0.keys_max_age_s: "),
                ({"max_lifetime_s": 86401}, "issuers.0.max_lifetime_s: "),
                ({"discovery": True}, "identity.issuers.0.discovery is not a setting"),
            )
        ),
        (
            {
                "identity": {
                    "jwt": JWT,
                    "issuers": [ASKED, {**ASKED, "name": "b", "issuer": "https://b"}],
                }
            },
            "only one may have introspection",
        ),
        (
            {"identity": {"jwt": JWT, "issuers": [COMPANY, {**COMPANY, "name": "other"}]}},
            "each needs an issuer of its own",
        ),
        *(
            ({"counters": {"url": url}}, f"counters.url: Value error, {said}")
            for url, said in (
                ("foo://h", "must begin with rediss://, redis:// or unix://"),
                ("localhost:6379", "must begin with rediss://, redis:// or unix://"),
                ("redis://", "names no host"),
                ("redis://h:x", "Port could not be cast"),
                ("redis://h:99999", "Port out of range"),
                ("redis://u:p@h", "holds a password, which belongs into the file of counters.pass"),
                ("redis://h/abc", "must end with the number of a database"),
                ("redis://h/0/1", "must end with the number of a database"),
                ("rediss://h?ssl_cert_reqs=none", "has options that are not taken; only db=NUMBER"),
                ("redis://h#0", "has options that are not taken"),
                ("unix://", "names no socket"),
            )
        ),
        ({"counters": {"url": "redis://h", "ca": "/ca"}}, "without it there is no TLS"),
        ({"policy": {"timeout_s": 0}}, "policy.timeout_s: Input should be greater than 0"),
        (
            {"tools": {"monitoring": {"prometheus_ulr": "x"}}},
            "tools.monitoring.prometheus_ulr is not a setting; did you mean prometheus_url?",
        ),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, {**MINIMAL, **change}))

    assert said in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://mcp-server@redis1.lab.internal:6379/0",
        "redis://[fd00::1]:6379/",
        "unix:///run/redis/redis.sock",
        "unix://mcp-server@/run/redis/redis.sock?db=1",
    ],
)
def test_the_ways_to_redis_are_taken(tmp_path: Path, url: str) -> None:
    settings = load_settings(write(tmp_path, {**MINIMAL, "counters": {"url": url}}))

    assert settings.counters.url == url


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("a: [", "is not valid YAML"),
        ("- a", "must hold a mapping"),
        ("", "must hold a mapping"),
    ],
)
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, document: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(write(tmp_path, document))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*absent"):
        load_settings(tmp_path / "absent")


def test_a_secret_is_read_without_its_newline(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("hidden\n")

    assert Secret(file=tmp_path / "s").reveal() == "hidden"


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_missing_or_empty_secret_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "s").write_text(content)

    with pytest.raises(SettingsError, match="secret file"):
        Secret(file=tmp_path / "s").reveal()


def test_a_secret_of_random_bytes_is_an_error_that_says_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"\x8c" * 48)

    with pytest.raises(SettingsError, match=rf"{path} is not text .*`openssl rand -base64 48`"):
        Secret(file=path).reveal()


@pytest.mark.parametrize(
    "change",
    [
        {"database": {"host": "h", "password": ["hunter2"]}},
        {"database": {"host": "h", "password": {"file": ["hunter2"]}}},
        {"database": {"host": "h", "password": {"credential": "hunter2 "}}},
        {"database": {"host": "h", "pasword": "hunter2"}},
        {"counters": {"url": "redis://user:hunter2@h"}},
        {"log": {"level": "https://user:hunter2@h"}},
    ],
)
def test_a_fault_does_not_show_what_may_be_a_secret(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, {**MINIMAL, **change}))

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"listen": {"port": 70000}}, "less than or equal to 65535, not 70000"),
        ({"log": {"level": "TRACE"}}, "'INFO', 'WARNING' or 'ERROR', not 'TRACE'"),
        ({"node": None}, "node: Input should be a valid string, not null"),
        ({"listen": {"drain_s": "5s"}}, "not '5s'; give the number alone: its unit is seconds"),
        (
            {"listen": {"max_body_bytes": "256K"}},
            "not '256K'; give the number alone: its unit is bytes",
        ),
        ({"database": {"host": "h", "timeout": 5}}, "did you mean timeout_s?"),
    ],
)
def test_a_fault_names_the_value_and_what_is_accepted(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, {**MINIMAL, **change}))

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("node: a\nlisten:\n\tport: 1\n", "line 3, column 1: a tab; YAML is indented with spaces"),
        ("node: hunter2\npublic_url: u\nnode: b\n", "node is there twice, on lines 1 and 3"),
        ("log: {level: INFO, level: hunter2}", "level is there twice, on lines 1 and 1"),
        ("node: hunter2: b", "line 1, column 14: mapping values are not allowed here"),
        ("password: [hunter2", "line 1, column 19: "),
        ("since: 2026-99-99", "is not valid YAML"),
        ("node: *hunter", "undefined alias"),
        ("a: 1\n---\nb: 2", "another document"),
        ("node: !!python/object:hunter2 {}", "a tag or a key that is not accepted"),
        ("node: \x07hunter2", "special characters are not allowed"),
    ],
)
def test_bad_yaml_is_named_with_its_line_and_without_its_text(
    tmp_path: Path, document: str, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, document))

    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("https://portal.company.com", "https://portal.company.com"),
        ("HTTPS://Portal.Company.com:443/", "https://portal.company.com"),
        ("https://portal.company.com:8443", "https://portal.company.com:8443"),
        ("https://*.company.com", "https://*.company.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_taken_as_browsers_send_it(tmp_path: Path, given: str, taken: str) -> None:
    settings = load_settings(write(tmp_path, {**MINIMAL, "cors": {"allowed_origins": [given]}}))

    assert settings.cors.allowed_origins == (taken,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("*", "* would let every website call this server"),
        ("https://*", "* stands for the first label only"),
        ("https://*.com", "*.com would be all domains below a top-level domain"),
        ("https://portal.*.com", "* stands for the first label only"),
        ("https://*portal.company.com", "* stands for the first label only"),
        ("https://*.*.company.com", "* stands for the first label only"),
        ("https://portal.company.com.", "* stands for the first label only"),
        ("https://bücher.example", "a name has ASCII letters (xn--…)"),
        ("http://portal.company.com", "must begin with https://"),
        ("https://portal.company.com/app", "is no origin"),
        ("https://portal.company.com?x", "is no origin"),
        ("https://user@portal.company.com", "is no origin"),
        ("https://portal.company.com:99999", "Port out of range"),
        ("portal.company.com", "is no origin"),
        ("null", "is no origin"),
        ("", "is no origin"),
        ("https://", "is no origin"),
        ("file:///etc", "is no origin"),
    ],
)
def test_what_is_no_origin_is_refused(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(SettingsError, match=r"cors\.allowed_origins\.0: ") as caught:
        load_settings(write(tmp_path, {**MINIMAL, "cors": {"allowed_origins": [given]}}))

    assert said in str(caught.value)


def test_the_schema_takes_a_claim_path_in_both_forms() -> None:
    claims = Settings.model_json_schema()["$defs"]["ClaimsSettings"]
    check = jsonschema.Draft202012Validator(claims["properties"]["subject"])

    valid = [check.is_valid(value) for value in ("realm.sub", ["realm", "sub"], 5)]

    assert valid == [True, True, False]
