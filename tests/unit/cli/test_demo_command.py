"""What `headrace demo` refuses before anything is read or started."""

from __future__ import annotations

import importlib.util

import pytest
import typer
from typer.testing import CliRunner

from headrace.commands.common import Invocation
from headrace.commands.demo import demo
from headrace.core.errors import UserError

app = typer.Typer()
app.command()(demo)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--learning", "--teaching"), "choose one of them"),
        (("--endpoint",), "names the teacher of --teaching"),
        (("--teaching", "--seconds", "5"), "ends with its fourth version"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...], said: str) -> None:
    ended = CliRunner().invoke(app, arguments, obj=Invocation(environ={}), catch_exceptions=False)
    assert ended.exit_code == 2
    assert said in ended.output


@pytest.mark.parametrize(("arguments", "package"), [((), "transformers"), (("--endpoint",), "openai")])
def test_a_missing_extra_is_named_before_anything_starts(
    arguments: tuple[str, ...], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"needs {package}: pip install 'headrace\[demo,teach\]'"):
        CliRunner().invoke(
            app, ["--teaching", *arguments], obj=Invocation(environ={}), catch_exceptions=False, standalone_mode=False
        )
