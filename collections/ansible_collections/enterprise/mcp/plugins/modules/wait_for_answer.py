#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Sends HTTP requests repeatedly, within one task, until every response matches the expected one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wait_for_answer
short_description: Ask over HTTP until every answer is as wanted
version_added: 0.1.0
description:
  - Asks each URL in turn, twice a second, until its answer has a wanted status and holds what is wanted.
  - A service that is still starting is waited for in one process. C(ansible.builtin.uri) with C(until) prints a red
    C(FAILED - RETRYING) for each attempt of a healthy run, and starts a process for each.
  - Changes nothing, and asks in check mode as well.
author: [enterprise-mcp]
options:
  urls:
    description: What to ask, one after the other.
    type: list
    elements: str
    required: true
  unix_socket:
    description: Path of the Unix socket to ask on instead of the host and port of the URL.
    type: path
  body:
    description: What to send as JSON, with POST. Without it the question is a GET.
    type: dict
  status_code:
    description: Wanted statuses.
    type: list
    elements: int
    default: [200]
  holds:
    description:
      - Keys and values that the JSON response must contain. Additional keys are allowed at every level.
    type: dict
    default: {}
  ca_path:
    description: CA (PEM) of the server's certificate. By default the authorities of the system.
    type: path
  client_cert:
    description: Our own certificate (PEM), where the server asks for one.
    type: path
  client_key:
    description: Its key (PEM).
    type: path
  validate_certs:
    description: Whether the server's certificate is verified.
    type: bool
    default: true
  timeout:
    description: Seconds for all URLs together, after which no further question is asked.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Wait until OPA decides by the new policies
  enterprise.mcp.wait_for_answer:
    urls: [http://opa/v1/data/mcp/decision/canary]
    unix_socket: /run/opa/opa.sock
    body: {input: {}}
    holds: {result: {revision: "{{ revision }}"}}
    timeout: 60
"""

RETURN = r"""
answers:
  description: The last answer to each URL that was asked.
  type: list
  elements: dict
  returned: always
  contains:
    url:
      description: What was asked.
      type: str
    status:
      description: Status of the answer; 0 when there was none.
      type: int
    json:
      description: The answer, or null when it is no JSON.
      type: raw
    said:
      description: The first 300 characters of the answer, or why there was none.
      type: str
"""

import json
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as NoConnection
from ansible.module_utils.urls import open_url

_INTERVAL_S = 0.5
_QUESTION_S = 10
_MAX_BYTES = 1 << 20
_SAID = 300


def ask(url: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the response to one request, whatever its status is; see RETURN."""
    body = parameters["body"]
    same = ("unix_socket", "ca_path", "client_cert", "client_key", "validate_certs")
    try:
        try:
            with open_url(
                url,
                data=None if body is None else json.dumps(body),
                headers={} if body is None else {"Content-Type": "application/json"},
                timeout=_QUESTION_S,
                follow_redirects="none",
                **{name: parameters[name] for name in same},
            ) as answer:
                status, content = answer.status, answer.read(_MAX_BYTES)
        except HTTPError as error:
            with error:
                status, content = error.code, error.read(_MAX_BYTES)
    except (NoConnection, HTTPException, OSError) as error:
        return {"url": url, "status": 0, "json": None, "said": str(error) or type(error).__name__}
    text = content.decode(errors="replace").strip()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return {"url": url, "status": status, "json": found, "said": text[:_SAID]}


def holds(found: Any, wanted: Any) -> bool:
    """Return whether `found` contains all keys of `wanted`; lists and scalars must be equal."""
    if not isinstance(wanted, dict):
        return bool(found == wanted)
    return isinstance(found, dict) and all(
        name in found and holds(found[name], value) for name, value in wanted.items()
    )


def main() -> None:
    """Repeat the requests until every response matches, or fail with the last response."""
    module = AnsibleModule(
        argument_spec={
            "urls": {"type": "list", "elements": "str", "required": True},
            "unix_socket": {"type": "path"},
            "body": {"type": "dict"},
            "status_code": {"type": "list", "elements": "int", "default": [200]},
            "holds": {"type": "dict", "default": {}},
            "ca_path": {"type": "path"},
            "client_cert": {"type": "path"},
            "client_key": {"type": "path"},
            "validate_certs": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    until = time.monotonic() + wanted["timeout"]
    answers: list[dict[str, Any]] = []
    for url in wanted["urls"]:
        while True:
            answer = ask(url, wanted)
            if answer["status"] in wanted["status_code"] and (
                not wanted["holds"] or holds(answer["json"], wanted["holds"])
            ):
                break
            if time.monotonic() + _INTERVAL_S > until:
                status = answer["status"] or "none"
                module.fail_json(
                    msg=(
                        f"{url} did not answer as wanted within {wanted['timeout']} s. "
                        f"Last answer: {status}, {answer['said'] or 'empty'}"
                    ),
                    answers=[*answers, answer],
                )
            time.sleep(_INTERVAL_S)
        answers.append(answer)
    module.exit_json(changed=False, answers=answers)


if __name__ == "__main__":
    main()
