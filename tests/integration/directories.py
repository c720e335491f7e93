"""OpenLDAP servers with users and groups of a small company."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

from mcp_server.settings import DirectorySettings
from tests.integration.servers import Authority, Server, ServerFailed, free_port, program

__all__ = ["PASSWORD", "SERVICE_PASSWORD", "Slapd", "directory_settings"]

PASSWORD = "correct horse battery staple"
"""Of every user that has a password."""
SERVICE_PASSWORD = "service-secret"
"""Of the account that searches."""
_SUFFIX = "dc=example,dc=test"
_SERVICE = f"cn=mcp,ou=services,{_SUFFIX}"
_PEOPLE = f"ou=people,{_SUFFIX}"
_GROUPS = f"ou=groups,{_SUFFIX}"
# Attributes that Active Directory has and OpenLDAP has not.
_ACTIVE_DIRECTORY = """
attributetype ( 1.2.840.113556.1.4.8 NAME 'userAccountControl'
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.1460 NAME 'msDS-User-Account-Control-Computed'
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.662 NAME 'lockoutTime'
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.159 NAME 'accountExpires'
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
objectclass ( 1.2.840.113556.1.5.9 NAME 'adUser' SUP top AUXILIARY
  MAY ( userAccountControl $ msDS-User-Account-Control-Computed $ lockoutTime $ accountExpires ) )
"""


def directory_settings(
    *servers: str, ca: Path | None, secret: Path, **changes: Any
) -> DirectorySettings:
    """Return settings for the users and groups of `Slapd`.

    Args:
        secret: a file for the password of the service's account.
    """
    secret.write_text(SERVICE_PASSWORD)
    document: dict[str, Any] = {
        "servers": servers,
        "ca": ca,
        "bind_dn": _SERVICE,
        "bind_password": {"file": secret},
        "users": {"base": _PEOPLE, "attributes": ["uid", "mail"], "id": "uid"},
        "groups": {"base": _GROUPS},
        "tenant": {"value": "default"},
        "timeout_s": 20,
        **changes,
    }
    return DirectorySettings.model_validate(document)


class Slapd(Server):
    """OpenLDAP as an unprivileged process: ldaps, StartTLS, password policy; no bind without TLS.

    Attributes:
        url: with TLS from the start.
        start_tls_url: for StartTLS.
    """

    def __init__(self, directory: Path, authority: Authority) -> None:
        super().__init__(directory)
        self._tls_port, self._port = free_port(), free_port()
        self.url = f"ldaps://127.0.0.1:{self._tls_port}"
        self.start_tls_url = f"ldap://127.0.0.1:{self._port}"
        self.ca = authority.ca
        self._config = directory / "slapd.conf"
        self._account = "openldap" if os.getuid() == 0 else None
        self._configure(authority)

    def command(self) -> list[str]:
        # The second address is not in the certificate.
        urls = f"{self.url}/ {self.start_tls_url}/ ldaps://127.0.0.2:{self._tls_port}/"
        return [
            *self._as_account(),
            self._binary("slapd"),
            "-d0",
            "-h",
            urls,
            "-f",
            str(self._config),
        ]

    def ready(self) -> bool:
        return "namingContexts" in self.search("", "namingContexts", scope="base")

    def search(self, base: str, *attributes: str, scope: str = "sub") -> str:
        """Search as the administrator and return the entries as LDIF."""
        return self._run(
            "ldapsearch", "-LLL", "-s", scope, "-b", base, "(objectClass=*)", *attributes
        )

    def modify(self, ldif: str) -> None:
        """Change entries as the administrator."""
        self._run("ldapmodify", "-c", "-M", stdin=ldif)

    def _run(self, name: str, *words: str, stdin: str = "") -> str:
        done = subprocess.run(
            [
                *(program(name, "ldap-utils"), "-x", "-H", self.url, "-o", "nettimeout=5"),
                *("-D", f"cn=admin,{_SUFFIX}", "-w", "admin-secret", *words),
            ],
            input=stdin,
            env={**os.environ, "LDAPTLS_CACERT": str(self.ca)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0:
            raise ConnectionError(f"{name}: {done.stderr}")
        return done.stdout

    def _configure(self, authority: Authority) -> None:
        identity = authority.identity(f"slapd{self._port}")
        data = self.directory / "data"
        data.mkdir()
        schemas = ("core", "cosine", "inetorgperson", "nis")
        self._config.write_text(
            "".join(f"include /etc/ldap/schema/{name}.schema\n" for name in schemas)
            + _ACTIVE_DIRECTORY
            + f"""
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile {self.directory}/pid
TLSCACertificateFile {authority.ca}
TLSCertificateFile {identity.cert}
TLSCertificateKeyFile {identity.key}
security simple_bind=128
database mdb
suffix {_SUFFIX}
rootdn cn=admin,{_SUFFIX}
rootpw admin-secret
directory {data}
maxsize 67108864
dbnosync
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{_SERVICE}" read by * none
overlay ppolicy
ppolicy_default cn=default,ou=policies,{_SUFFIX}
"""
        )
        ldif = self.directory / "company.ldif"
        ldif.write_text(_company())
        for path in (self.directory, data, identity.key):
            if self._account:
                shutil.chown(path, self._account, self._account)
        done = subprocess.run(
            [
                *self._as_account(),
                self._binary("slapadd"),
                "-q",
                "-f",
                str(self._config),
                "-l",
                str(ldif),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailed(f"slapadd: {done.stderr}")

    def _as_account(self) -> list[str]:
        if self._account is None:
            return []
        account = pwd.getpwnam(self._account)
        return [
            *("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"),
            *("--clear-groups", "--pdeathsig=TERM"),
        ]

    def _binary(self, name: str) -> str:
        return program(name, "slapd")


def _company() -> str:
    people = [
        _person("alice", "mail: alice@example.test", "o: acme"),
        _person("bob", "mail: shared@example.test"),
        _person("carol", "mail: shared@example.test"),
        # A user's name may hold every character that means something in a search or in a DN.
        _person("a*(b)\\c", rdn="cn=Smith\\, \\22Jo\\22 \\+ Co"),
        _person("müller"),
        _person("nopassword", password=""),
        _person("locked", "pwdAccountLockedTime: 000001010000Z"),
        _person("resets", "pwdReset: TRUE"),
        _person("guessed"),
        _person("shadowed", "shadowExpire: 1", classes=("shadowAccount",)),
        _person("lasting", "shadowExpire: -1", classes=("shadowAccount",)),
        _person("ad-user", "userAccountControl: 512", "accountExpires: 0", classes=("adUser",)),
        _person("ad-disabled", "userAccountControl: 514", classes=("adUser",)),
        _person("ad-locked", "lockoutTime: 133000000000000000", classes=("adUser",)),
        _person("ad-expired", "accountExpires: 133000000000000000", classes=("adUser",)),
    ]
    groups = [
        _group("mcp-operators", _dn("alice")),
        _group("mcp-admins", "cn=mcp-leads," + _GROUPS),
        _group("mcp-leads", _dn("bob")),
        _group("everyone", "cn=mcp-admins," + _GROUPS, "cn=mcp-operators," + _GROUPS),
        # Members of each other.
        _group("circle-a", _dn("carol"), "cn=circle-b," + _GROUPS),
        _group("circle-b", "cn=circle-a," + _GROUPS),
        _group("quoted", "cn=Smith\\, \\22Jo\\22 \\+ Co," + _PEOPLE),
        "\n".join(
            (
                f"dn: cn=unix,{_GROUPS}",
                *("objectClass: posixGroup", "cn: unix", "gidNumber: 1", "memberUid: alice"),
            )
        ),
    ]
    units = [
        f"dn: ou={name},{_SUFFIX}\nobjectClass: organizationalUnit\nou: {name}"
        for name in ("people", "groups", "services", "policies")
    ]
    return "\n\n".join(
        [
            f"dn: {_SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example",
            *units,
            (
                f"dn: {_SERVICE}\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\n"
                f"cn: mcp\nuserPassword: {SERVICE_PASSWORD}"
            ),
            (
                f"dn: cn=default,ou=policies,{_SUFFIX}\nobjectClass: applicationProcess\n"
                "objectClass: pwdPolicy\ncn: default\npwdAttribute: userPassword\npwdLockout: TRUE\n"
                "pwdMaxFailure: 3\npwdLockoutDuration: 2\npwdMustChange: TRUE"
            ),
            *people,
            *groups,
        ]
    )


def _dn(user: str) -> str:
    return f"uid={user},{_PEOPLE}"


def _person(
    uid: str,
    *lines: str,
    password: str = PASSWORD,
    classes: tuple[str, ...] = (),
    rdn: str | None = None,
) -> str:
    parts = [
        f"dn: {rdn},{_PEOPLE}" if rdn else f"dn: {_dn(uid)}",
        "objectClass: inetOrgPerson",
        *(f"objectClass: {name}" for name in classes),
        f"uid: {uid}",
        'cn: Smith, "Jo" + Co' if rdn else f"cn: {uid}",
        f"sn: {uid}",
        *lines,
    ]
    return "\n".join([*parts, f"userPassword: {password}"] if password else parts)


def _group(name: str, *members: str) -> str:
    lines = [f"dn: cn={name},{_GROUPS}", "objectClass: groupOfNames", f"cn: {name}"]
    return "\n".join([*lines, *(f"member: {member}" for member in members)])
