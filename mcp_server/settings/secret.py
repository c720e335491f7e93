"""A secret of the configuration: readable text, encrypted text, or the name of a file or credential."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from mcp_server.settings.encryption import Cipher, decoded_salt
from mcp_server.settings.model import Model, SettingsError

__all__ = ["EncryptionSettings", "Secret", "SettingPath", "secrets_of"]

_FORMS = "text in quotes, or a mapping with one of file, credential and encrypted"


class Secret(Model):
    """A secret: text, or one of `file`, `credential` and `encrypted`."""

    file: Path | None = None
    """File with the secret."""
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}$")] | None = None
    """Name of a file in the directory of systemd's credentials ($CREDENTIALS_DIRECTORY)."""
    encrypted: Annotated[str, Field(min_length=1)] | None = None
    """The secret, encrypted by `mcpctl config encrypt` with the key of the section `encryption`."""

    _text: SecretStr | None = PrivateAttr(None)
    _cipher: Cipher | None = PrivateAttr(None)
    _setting: str = PrivateAttr("")

    @model_validator(mode="wrap")
    @classmethod
    def _from_one_form(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(given, str):
            if not given:
                raise ValueError(f"is empty; a secret is {_FORMS}")
            secret = handler({})
            secret._text = SecretStr(given)
            return secret
        if not isinstance(given, dict | cls):
            raise ValueError(f"a secret is {_FORMS}")
        secret = handler(given)
        forms = (secret.file, secret.credential, secret.encrypted, secret._text)
        if sum(form is not None for form in forms) != 1:
            raise ValueError(f"a secret is {_FORMS}")
        return secret

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema of all forms, text included."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        mapping = {**schema, "minProperties": 1}
        text = {"type": "string", "minLength": 1}
        description = mapping.pop("description", "")
        schema.clear()
        schema.update({"description": description, "anyOf": [text, mapping]})
        return reference

    def bind(self, setting: str, cipher: Cipher | None) -> None:
        """Set the name for messages, and the cipher of encrypted text."""
        self._setting = setting
        self._cipher = cipher

    @property
    def plain(self) -> bool:
        """Whether the configuration contains the secret as readable text."""
        return self._text is not None

    @property
    def path(self) -> Path | None:
        """The file with the secret; None: the configuration contains it.

        Raises:
            SettingsError: the process has no credentials.
        """
        if self.credential is None:
            return self.file
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise SettingsError(
                f"{self}: the environment variable CREDENTIALS_DIRECTORY is not set; systemd sets it "
                "for a unit with LoadCredential="
            )
        return Path(directory) / self.credential

    def __str__(self) -> str:
        """Return where the secret is, for messages."""
        if self.file is not None:
            return f"the secret file {self.file}"
        if self.credential is not None:
            return f"the credential {self.credential}"
        return f"the secret {self._setting}".rstrip()

    def reveal(self) -> str:
        """Return the secret without the trailing newline.

        Raises:
            SettingsError: the file is missing, unreadable, empty or not text; the encrypted text cannot
                be decrypted.
        """
        if self._text is not None:
            return self._text.get_secret_value()
        if self.encrypted is not None:
            if self._cipher is None:
                raise SettingsError(f"{self} is encrypted, and there is no section encryption")
            return self._cipher.decrypt(self.encrypted, str(self))
        path = self.path
        if path is None:
            raise SettingsError(f"{self}: {_FORMS}")
        return self._read(path)

    def _read(self, path: Path) -> str:
        try:
            value = path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise SettingsError(f"cannot read {self}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(
                f"{self} is not text (UTF-8): write random bytes as text, "
                "such as the output of `openssl rand -base64 48`"
            ) from None
        if not value:
            raise SettingsError(f"{self} is empty")
        if value.startswith("$ANSIBLE_VAULT;"):
            raise SettingsError(
                f"{self} is encrypted: pipe `ansible-vault view {path}` "
                "into the command and name /dev/stdin as the file"
            )
        return value


class EncryptionSettings(Model):
    """The key of secrets that are `encrypted`: derived from a password (scrypt), or random."""

    password: Secret | None = None
    """Password, at least 12 characters: file or credential."""
    salt: str | None = None
    """Salt of the password, at least 16 random bytes in base64."""
    key: Secret | None = None
    """Random key, the output of `openssl rand -base64 32`: file or credential."""

    @model_validator(mode="after")
    def _require_one_key(self) -> Self:
        if (self.password is None) == (self.key is None):
            raise ValueError("needs exactly one of password and key")
        if (self.password is None) != (self.salt is None):
            raise ValueError("salt belongs to password: `mcpctl config encrypt` writes both")
        if self.salt is not None:
            try:
                decoded_salt(self.salt)
            except ValueError as error:
                raise ValueError(f"salt {error}") from None
        if self._source.plain or self._source.encrypted is not None:
            raise ValueError("password and key must be a file or a credential")
        return self

    @property
    def _source(self) -> Secret:
        source = self.password or self.key
        if source is None:
            raise ValueError("needs exactly one of password and key")
        return source

    def cipher(self) -> Cipher:
        """Return the cipher; nothing is read yet."""
        return Cipher(self._source.reveal, self.salt)


SettingPath = tuple[str, ...]
"""Where a setting is: `("database", "password")`; an entry of a list by its number."""


def secrets_of(settings: BaseModel, path: SettingPath = ()) -> Iterator[tuple[SettingPath, Secret]]:
    """Yield all secrets of a configuration, each with its path."""
    for name in type(settings).model_fields:
        yield from _secrets_in(getattr(settings, name), (*path, name))


def _secrets_in(value: Any, path: SettingPath) -> Iterator[tuple[SettingPath, Secret]]:
    match value:
        case Secret():
            yield path, value
        case BaseModel():
            yield from secrets_of(value, path)
        case dict():
            for key, item in value.items():
                yield from _secrets_in(item, (*path, str(key)))
        case tuple():
            for number, item in enumerate(value):
                yield from _secrets_in(item, (*path, str(number)))
