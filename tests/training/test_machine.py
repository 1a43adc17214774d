"""A device that is not there is refused by name, in every command."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from training import acceptance, drafter, evaluate, recipe, synthesise

COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "synthesise": (synthesise.main, ["chat", "corpus"]),
    "drafter": (drafter.main, ["head", "drafter", "--corpus", "corpus"]),
    "acceptance": (acceptance.main, ["drafter", "--corpus", "corpus"]),
    "evaluate": (evaluate.main, []),
    "recipe": (recipe.main, []),
}
REFUSED = {
    "cuda": "'cuda' is not there: torch",
    "cuda:1": "'cuda:1' is not there: torch",
    "gpu": "'gpu' is none of cpu, cuda and cuda:N",
    "cuda:-1": "'cuda:-1' is none of cpu, cuda and cuda:N",
}


@pytest.mark.parametrize("device", REFUSED)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_device_that_is_not_there(
    command: str,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main, arguments = COMMANDS[command]
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--device", device])
    assert f"argument --device: {REFUSED[device]}" in capsys.readouterr().err


def test_of_two_devices_there_is_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    parse = synthesise.parser().parse_args
    assert [parse(["chat", "c", "--device", f"cuda:{i}"]).device for i in (0, 1)] == [
        "cuda:0",
        "cuda:1",
    ]
    assert parse(["chat", "c"]).device == "cuda"
    with pytest.raises(SystemExit):
        parse(["chat", "c", "--device", "cuda:2"])


def test_no_thread_is_no_number_of_threads(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        synthesise.main(["chat", "corpus", "--num-threads", "0"])
    assert "'0' is no number of threads" in capsys.readouterr().err
