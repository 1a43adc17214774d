"""The scenarios' tenants as Locust users: `locust -f benchmarks/locustfile.py --host URL`.

Closed loop: a user waits for its answer before it asks again. Each user is one of the tenants of
the scenario HEDGEROW_SCENARIO (`steady`), by their rates, and has the key HEDGEROW_API_KEY, else
this machine's. A stream's first token is an entry of its own in Locust's tables.
"""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

from locust import HttpUser, constant, task

from benchmarks.load_plan import SCENARIOS
from benchmarks.login import api_key
from benchmarks.prompts import load_prompts

MODEL = os.environ.get("HEDGEROW_MODEL", "smollm2-135m-instruct")
TENANTS = SCENARIOS[os.environ.get("HEDGEROW_SCENARIO", "steady")]
PATH = "/v1/chat/completions"


class Tenant(HttpUser):
    """A client that streams one answer after another."""

    wait_time = constant(0)

    def on_start(self) -> None:
        rates = [each.rate_per_s for each in TENANTS]
        self._load = random.choices(TENANTS, rates)[0]
        self._headers = {"Authorization": f"Bearer {self._load.key or api_key()}"}

    @task
    def ask(self) -> None:
        (domain,) = random.choices(list(self._load.domains), list(self._load.domains.values()))
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": random.choice(load_prompts(domain)).text}],
            "max_tokens": self._load.max_tokens,
            "stream": True,
        }
        start_s, is_done, has_begun = time.monotonic(), False, False
        with self.client.post(
            PATH, json=body, headers=self._headers, stream=True, catch_response=True,
            name=self._load.name,
        ) as answer:  # fmt: skip
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}")
                return
            for line in answer.iter_lines():
                if line == b"data: [DONE]":
                    is_done = True
                elif line.startswith(b"data:") and not has_begun:
                    chunk = json.loads(line.removeprefix(b"data:"))
                    has_begun = bool(
                        chunk.get("choices") and chunk["choices"][0]["delta"].get("content")
                    )
                    if has_begun:
                        self._note_first(time.monotonic() - start_s)
            if not is_done:
                answer.failure("the stream ended early")

    def _note_first(self, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type="FIRST", name=f"{self._load.name}: first token",
            response_time=seconds * 1000, response_length=0, exception=None, context={},
        )  # fmt: skip
