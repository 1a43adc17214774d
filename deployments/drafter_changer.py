"""The changes to drafters, as targets and hosts see them: over the handle of the Router."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.drafter_changes import DrafterChange, DrafterChangeError, DrafterChanges
from deployments.router_store import Unreachable

TIMEOUT_S = 3.0
_NO_ROUTER = "the router does not answer; drafters stay as they are"


class DrafterChanger:
    """`model` is the fingerprint of the model that drafters are for."""

    def __init__(self, router: Any, model: str) -> None:
        self._router = router
        self._model = model

    def read(self) -> DrafterChanges | None:
        """The present document; None while nobody has it. Blocks."""
        try:
            found = self._router.drafter_changes.remote(self._model).result(timeout_s=TIMEOUT_S)
        except Exception:  # whatever Ray raises while the router is away
            return None
        return found if isinstance(found, DrafterChanges) else None

    async def change(self, change: DrafterChange) -> DrafterChangeError | Unreachable | None:
        """None if it is done."""
        try:
            response = self._router.change_drafters.remote(self._model, change)
            found = await asyncio.wait_for(response, TIMEOUT_S)
        except Exception:
            return Unreachable(_NO_ROUTER)
        if isinstance(found, DrafterChanges):
            return None
        if isinstance(found, DrafterChangeError):
            return found
        return Unreachable(f"there is no store for changes to drafters: {found.message}")
