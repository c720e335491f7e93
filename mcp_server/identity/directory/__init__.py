"""Sign-in with the password of an LDAP directory: OpenLDAP, Active Directory and the like."""

from mcp_server.identity.directory.connection import DirectoryUnavailable
from mcp_server.identity.directory.sign_in import Directory, DirectoryUser, SignInRefused

__all__ = ["Directory", "DirectoryUnavailable", "DirectoryUser", "SignInRefused"]
