"""Every call of AWS that verger makes in these tests is recorded, and has to be permitted.

But for those of commands that a test starts as a process of their own.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.client import BaseClient
from botocore.endpoint import Endpoint
from botocore.stub import Stubber

from calls import CALLS, known_calls, permissions_of
from policies import as_list
from verger.cloud.account.permissions import policy

RECORD = "VERGER_RECORD_CALLS"
"""Set it to have `calls.json` written anew: `VERGER_RECORD_CALLS=1 pytest tests/cloud`."""

FOUND: dict[str, set[str]] = {}
"""What each call was answered by, so far."""

ALLOWED = {
    action
    for who in ("run", "setup")
    for statement in policy(who)["Statement"]
    for action in as_list(statement["Action"])
}


def caller() -> str:
    """Whether verger or a test made a call: whose code is nearest on the stack; else a library."""
    frame = sys._getframe(2)
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        if "verger" in parts and "src" in parts:
            return "verger"
        if "tests" in parts and not Path(frame.f_code.co_filename).name.startswith("conftest"):
            return "test"
        frame = frame.f_back
    return "library"


@pytest.fixture(autouse=True)
def _calls_are_permitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    call, send, stubbed = BaseClient._make_api_call, Endpoint.make_request, Stubber
    made: list[tuple[str, str]] = []
    answered: list[str] = []

    def keep(self: BaseClient, operation: str, params: dict) -> object:
        who = caller()
        answered.clear()
        try:
            return call(self, operation, params)
        finally:
            # The threads in which boto3 transfers files have neither on their stack; no test here
            # transfers any.
            if who != "test":
                name = f"{self.meta.service_model.service_name}:{operation}"
                made.append((name, answered[-1] if answered else "script"))

    def sent(self: Endpoint, *args: object) -> object:
        answered.append("moto")
        return send(self, *args)

    respond = stubbed._get_response_handler

    def from_stub(self: Stubber, *args: object, **more: object) -> object:
        answered.append("stub")
        return respond(self, *args, **more)

    monkeypatch.setattr(BaseClient, "_make_api_call", keep)
    monkeypatch.setattr(Endpoint, "make_request", sent)
    monkeypatch.setattr(Stubber, "_get_response_handler", from_stub)
    yield
    for name, by in made:
        FOUND.setdefault(name, set()).add(by)
        missing = permissions_of(name) - ALLOWED
        assert not missing, f"{name} needs {missing}, which no policy gives"
        if RECORD not in os.environ:
            assert name in known_calls(), f"{name} is not in {CALLS.name}: record it"


def pytest_sessionfinish() -> None:
    if RECORD in os.environ:
        found = {name: sorted(by) for name, by in sorted(FOUND.items())}
        CALLS.write_text(json.dumps(found, indent=1) + "\n")
