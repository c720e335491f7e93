"""Whether an account may be used: Active Directory, OpenLDAP's password policy, and shadow accounts.

Directories refuse the bind of most of these accounts themselves. An account that may not be used is
refused here too where a directory lets it bind.
"""

from __future__ import annotations

from sansldap import LDAPResult, LDAPResultCode

from mcp_server.identity.directory.connection import Entry

__all__ = ["ACCOUNT_ATTRIBUTES", "fault_of", "refusal_of"]

ACCOUNT_ATTRIBUTES = (
    "userAccountControl",
    "msDS-User-Account-Control-Computed",
    "lockoutTime",
    "accountExpires",
    "pwdAccountLockedTime",
    "pwdReset",
    "shadowExpire",
)
"""Attributes that `fault_of` reads. Each must be requested by name: some are operational."""

# Bits of userAccountControl and of msDS-User-Account-Control-Computed, which knows how long a lockout
# lasts ([MS-ADTS] sections 2.2.16 and 3.1.1.4.5.17).
_DISABLED = 0x2
_LOCKED = 0x10
_PASSWORD_EXPIRED = 0x800000
# accountExpires counts 100 ns since 1601-01-01; two values mean never ([MS-ADA1] section 2.1).
_NEVER = (0, 0x7FFF_FFFF_FFFF_FFFF)
_TICKS_PER_S = 10_000_000
_FROM_1601_TO_1970_S = 11_644_473_600
_DAY_S = 86_400
# Error codes of Windows in the diagnostic message of a refused bind: "..., data 775, v4563".
_WINDOWS_FAULTS = {
    "525": "unknown_user",
    "52e": "wrong_password",
    "530": "not_at_this_time",
    "531": "not_from_here",
    "532": "password_expired",
    "533": "account_disabled",
    "701": "account_expired",
    "773": "password_must_change",
    "775": "account_locked",
}
_REFUSALS = frozenset(
    (
        LDAPResultCode.INVALID_CREDENTIALS,
        LDAPResultCode.INAPPROPRIATE_AUTHENTICATION,
        LDAPResultCode.INSUFFICIENT_ACCESS_RIGHTS,
        LDAPResultCode.UNWILLING_TO_PERFORM,
        LDAPResultCode.CONSTRAINT_VIOLATION,
        LDAPResultCode.NO_SUCH_OBJECT,
        LDAPResultCode.INVALID_DN_SYNTAX,
    )
)


def refusal_of(result: LDAPResult) -> str | None:
    """Return why a server refused a user's bind; None if it did not decide about the user."""
    if result.result_code not in _REFUSALS:
        return None
    for part in result.diagnostics_message.split(","):
        word, _, code = part.strip().partition(" ")
        if word == "data" and code in _WINDOWS_FAULTS:
            return _WINDOWS_FAULTS[code]
    return "wrong_password"


def fault_of(entry: Entry, now: float) -> str | None:
    """Return why an account may not be used; None if it may.

    A value that cannot be read counts as a fault.

    Args:
        entry: the account, with ACCOUNT_ATTRIBUTES, read after its user has authenticated: a server
            removes an expired lock then.
        now: Unix time.
    """
    try:
        return _fault_of(entry, now)
    except ValueError:
        return "account_unreadable"


def _fault_of(entry: Entry, now: float) -> str | None:
    control = _number(entry, "userAccountControl")
    computed = _number(entry, "msDS-User-Account-Control-Computed")
    # lockoutTime is of any lockout, also of a past one; only the computed attribute knows its end.
    knows_end = "msds-user-account-control-computed" in entry.values
    faults = {
        "account_disabled": control & _DISABLED,
        "account_locked": computed & _LOCKED
        or (not knows_end and _number(entry, "lockoutTime"))
        or entry.text("pwdAccountLockedTime"),
        "account_expired": _expired(entry, now),
        "password_expired": computed & _PASSWORD_EXPIRED,
        "password_must_change": entry.text("pwdReset").upper() == "TRUE",
    }
    return next((name for name, holds in faults.items() if holds), None)


def _expired(entry: Entry, now: float) -> bool:
    expires = _number(entry, "accountExpires")
    if expires not in _NEVER and expires / _TICKS_PER_S - _FROM_1601_TO_1970_S <= now:
        return True
    # shadow(5): the day on which the account expires, since 1970; not positive: never.
    return 0 < _number(entry, "shadowExpire") <= now / _DAY_S


def _number(entry: Entry, attribute: str) -> int:
    if attribute.lower() not in entry.values:
        return 0
    return int(entry.text(attribute))
