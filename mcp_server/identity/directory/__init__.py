"""Sign-in with the password of an LDAP directory: OpenLDAP, Active Directory and the like."""

from mcp_server.identity.directory.connection import DirectoryUnavailable
from mcp_server.identity.directory.sign_in import Directory, DirectoryUser, SignInRefused
from mcp_server.identity.directory.tokens import LIFETIME_S, DirectoryTokens

__all__ = [
    "LIFETIME_S",
    "Directory",
    "DirectoryTokens",
    "DirectoryUnavailable",
    "DirectoryUser",
    "SignInRefused",
]
