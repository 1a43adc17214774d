"""What must hold before anything is started, each said in one line when it does not."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path


class PreflightError(Exception):
    """Nothing can be served; the text says why and what to do."""


def check_port(host: str, port: object) -> None:
    if not (type(port) is int and 1 <= port <= 65535):
        raise PreflightError(f"the port {port!r} is no number from 1 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            reason = f"{host}:{port} cannot be listened on ({error.strerror})"
            raise PreflightError(f"{reason}; choose another port: make serve PORT=8001") from error


def check_disk(folder: Path, needed_mb: int) -> None:
    """`folder` need not exist yet."""
    present = next(path for path in (folder, *folder.parents) if path.exists())
    free_mb = shutil.disk_usage(present).free // 2**20
    if free_mb < needed_mb:
        raise PreflightError(f"{folder}: {needed_mb} MB of disk are needed, {free_mb} MB are free")
