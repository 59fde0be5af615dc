"""`aigw chat`: ask a model through the gateway, once or in a conversation."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from aigw.cli import figures, output
from aigw.cli.language import say
from aigw.cli.locations import Locations, locations
from aigw.cli.reach import CallFailed, Gateway, find
from aigw.cli.talk import PATHS, Reading, Turn, Wishes, request
from aigw.errors import CallerError

if TYPE_CHECKING:
    from aigw.cli.offers import Offers
    from aigw.cli.reach import Answer

EXAMPLES = """\b
Examples:
  aigw chat                                    a conversation, until Ctrl-D
  aigw chat "Why is the sky blue?"             one answer
  aigw chat -m gpt-6-luna "Say it in Latin"    of this model
  git diff | aigw chat "Review this"           what is piped stands behind the prompt
  aigw chat --json "Hi" | jq .usage            the whole answer, for programs
"""

_NEW_LIMIT = frozenset({"openai", "azure"})  # whose newer models refuse `max_tokens`

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def chat(
    context: typer.Context,
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]", help="What to ask; - reads it from standard input.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="MODEL", help="Default: the route 'default'.")] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="What the model should know before anything else.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="The longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, metavar="T", help="0: the same each time.")] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Show the answer when it is whole.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The provider's whole answer, for programs.")] = False,
    key: Annotated[
        str | None, typer.Option(metavar="REFERENCE", help="A consumer key: env:NAME or file:PATH. Default: the operator's.")
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Another gateway. Default: the one of this machine.")] = None,
) -> None:
    """Ask a model through the gateway. Without a prompt: a conversation.

    The answer goes to standard output, everything else to standard error. What is piped in is put behind the prompt.
    """
    from aigw.config.secrets import is_literal

    asked = _prompt(prompt or [])
    if asked is None and as_json:
        raise typer.BadParameter("--json needs a prompt")
    if key is not None and is_literal(key):
        output.warn("a key on the command line is seen by everybody on this machine; use env:NAME or file:PATH")
    wishes = Wishes("", system, max_tokens, temperature, stream=not (no_stream or as_json))
    try:
        talk = _Talk(locations(context), wishes, url=url, key=key)
        talk.choose(model)
        if asked is None:
            talk.converse()
        else:
            talk.once(asked, as_json=as_json)
    except (CallFailed, CallerError) as error:
        output.waiting("")
        output.fail(str(error))
        raise typer.Exit(1) from None


def _prompt(words: list[str]) -> str | None:
    """The whole prompt; None when there is none and somebody sits at the terminal. Raises BadParameter for an empty one."""
    typed = " ".join(words)
    if sys.stdin.isatty() and typed != "-":
        return typed if typed.strip() else None
    try:
        piped = sys.stdin.buffer.read().decode("utf-8-sig")  # as it is, whatever the locale
    except UnicodeDecodeError:
        raise typer.BadParameter("standard input is not UTF-8 text", param_hint="PROMPT") from None
    whole = "\n\n".join(part for part in ("" if typed == "-" else typed, piped.strip("\n")) if part.strip())
    if not whole:
        raise typer.BadParameter("there is nothing to ask: no prompt, and standard input is empty", param_hint="PROMPT")
    return whole


class _Talk:
    """A gateway, a model, and what was said so far."""

    def __init__(self, where: Locations, wishes: Wishes, *, url: str | None, key: str | None) -> None:
        config = where.load_config()
        self._gateway: Gateway = find(where, config, url=url, key=key)
        self._offers: Offers | None = None if url else _offers(where)  # of another gateway nothing is known here
        self._wishes = wishes
        self._turns: list[Turn] = []
        self._operations = dict[str, str]()  # by which operation a model was found to answer

    def choose(self, model: str | None) -> None:
        """Talk to *model* from now on; to the default one when it is None. Raises CallFailed where nobody can tell which."""
        self._wishes = self._wishes._replace(model=model or self._default())

    def _default(self) -> str:
        from aigw.cli.offers import DEFAULT

        if self._offers is not None and self._offers.knows(DEFAULT):
            return DEFAULT
        names = self._gateway.models()
        if DEFAULT in names or len(names) == 1:
            return DEFAULT if DEFAULT in names else names[0]
        if not names:
            raise CallFailed("no model can be asked for: no provider is configured, or none has listed its models yet")
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise CallFailed(f"there is no route 'default': choose a model with -m ({shown})")

    # one question

    def once(self, prompt: str, *, as_json: bool) -> None:
        """Ask, show, end. Raises CallFailed."""
        self._turns.append(Turn("user", prompt))
        started = time.perf_counter()
        operation, answer = self._ask()
        with answer:
            if as_json:
                self._show_json(answer)
            else:
                self._show(operation, answer, started)

    def _ask(self) -> tuple[str, Answer]:
        """An answer, and the operation it came by: the one that the model's provider speaks. Raises CallFailed."""
        model = self._wishes.model
        order = sorted(PATHS, key=lambda one: one != self._guess(model))
        output.waiting("...")
        for operation in order:
            try:
                answer = self._gateway.ask(PATHS[operation], request(operation, self._fitted(operation), self._turns))
            except CallFailed as error:
                if error.code != "caller_unsupported" or operation == order[-1] or model in self._operations:
                    raise
            else:
                self._operations[model] = operation
                return operation, answer
        raise AssertionError("unreachable: the last operation answers or raises")

    def _guess(self, model: str) -> str:
        if model in self._operations:
            return self._operations[model]
        if self._offers is not None:
            return next((operation for operation in PATHS if self._offers.serves(model, operation)), "chat")
        return "chat"

    def _fitted(self, operation: str) -> Wishes:
        """The wishes in the words of whoever will be asked first."""
        place = self._offers.place(self._wishes.model, operation) if self._offers is not None else None
        if place is None:
            return self._wishes
        return self._wishes._replace(new_limit=place.kind in _NEW_LIMIT, usage=place.stream_usage)

    def _show_json(self, answer: Answer) -> None:
        content = answer.read()
        output.waiting("")
        try:
            output.json(json.loads(content))
        except ValueError:
            raise CallFailed("the answer is not JSON", request_id=answer.headers.get("x-request-id", "")) from None

    def _show(self, operation: str, answer: Answer, started: float) -> None:
        """The answer on standard output, and a turn of its own. Raises CallFailed, KeyboardInterrupt; what had come until
        then is shown, and a turn as well."""
        reading = Reading(operation, answer)
        first: float | None = None
        said: list[str] = []
        try:
            for piece in reading:
                if first is None:
                    first = time.perf_counter() - started
                    output.waiting("" if piece else say("thinking...", "思考中……"))
                if piece and not said:
                    output.waiting("")
                if piece:
                    said.append(piece)
                    output.part(piece)
        finally:
            output.waiting("")
            text = "".join(said)
            if text:
                self._turns.append(Turn("assistant", text))
                if not text.endswith("\n"):
                    output.data("")
        total = time.perf_counter() - started
        if not text and not reading.ended:
            output.note(say("(an empty answer)", "（空回答）"))
        if reading.ended == "max_tokens":
            output.note(
                say(
                    "(cut off at the limit of tokens; --max-tokens allows more)",
                    "（达到 token 上限被截断；可用 --max-tokens 调高）",
                )
            )
        elif reading.ended:
            output.note(say("(ended by the provider's content filter)", "（被提供商的内容过滤终止）"))
        if sys.stderr.isatty():
            output.aside(_facts(self._wishes.model, answer, reading, first, total))

    # a conversation

    def converse(self) -> None:
        """Until Ctrl-D or /exit. Errors are shown and leave the conversation as it was."""
        output.note(
            say(
                f"Talking to {self._wishes.model} at {self._gateway.url}. /help lists commands; Ctrl-D leaves.",
                f"正在与 {self._wishes.model} 对话（{self._gateway.url}）。/help 查看命令，Ctrl-D 退出。",
            )
        )
        while True:
            try:
                typed = _typed()
            except EOFError:
                output.note("")
                return
            except KeyboardInterrupt:
                output.note(say("\n(Ctrl-D or /exit leaves)", "\n（Ctrl-D 或 /exit 退出）"))
                continue
            if not typed.strip():
                continue
            if typed.startswith("/"):
                if self._command(typed) is False:
                    return
                continue
            self._exchange(typed)

    def _exchange(self, typed: str) -> None:
        before = len(self._turns)
        try:
            self.once(typed, as_json=False)
        except KeyboardInterrupt:
            output.waiting("")
            output.note(say("(stopped)", "（已停止）"))
        except CallFailed as error:
            output.waiting("")
            output.fail(str(error))
        if len(self._turns) == before + 1:  # no answer: the question is taken back
            del self._turns[before:]

    def _command(self, typed: str) -> bool | None:
        """Do what a line beginning with / says; False when that is the end."""
        name, _, rest = typed[1:].strip().partition(" ")
        if name in ("exit", "quit", "bye"):
            return False
        if name == "clear":
            self._turns.clear()
            output.note(say("(forgotten)", "（已清空）"))
        elif name == "model":
            self._change_model(rest.strip())
        elif name in ("help", "?"):
            output.note(
                say(
                    "/model NAME   talk to another model; /model lists them\n"
                    "/clear        forget what was said\n"
                    "/exit         leave (also Ctrl-D)\n"
                    '"""           begins and ends a text of several lines\n'
                    "Ctrl-C        stops an answer",
                    "/model 名称   换一个模型；/model 列出可用的\n"
                    "/clear        清空对话\n"
                    "/exit         退出（或 Ctrl-D）\n"
                    '"""           开始和结束多行文字\n'
                    "Ctrl-C        停止回答",
                )
            )
        else:
            output.note(
                say(
                    f"There is no command /{name[:40]}; /help lists them. Put a space before a text that begins with /.",
                    f"没有命令 /{name[:40]}；/help 查看命令。以 / 开头的文字请在前面加一个空格。",
                )
            )
        return None

    def _change_model(self, name: str) -> None:
        try:
            names = self._gateway.models()
        except CallFailed as error:
            output.fail(str(error))
            return
        if name:
            known = name in names or (self._offers is not None and self._offers.knows(name))
            if not known and self._offers is not None:
                from aigw.cli.suggest import unknown

                output.fail(unknown("model", name, names))
                return
            self.choose(name)
        else:
            shown = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
            output.note(shown or say("no model is listed", "没有列出任何模型"))
        output.note(say(f"(model: {self._wishes.model})", f"（模型：{self._wishes.model}）"))


def _offers(where: Locations) -> Offers:
    from aigw.cli import names
    from aigw.cli.offers import Offers

    known = names.read(where)
    return Offers(known.providers, known.table)


def _typed() -> str:
    """One message: a line, or what stands between two lines with three quotes. Raises EOFError, KeyboardInterrupt."""
    first = output.typed("> ")
    if not first.startswith('"""'):
        return first
    lines = [first[3:]]
    while not lines[-1].rstrip().endswith('"""') or (len(lines) == 1 and not lines[0].strip()):
        lines.append(output.typed(". "))
    lines[-1] = lines[-1].rstrip().removesuffix('"""')
    return "\n".join(lines).strip("\n")


def _facts(model: str, answer: Answer, reading: Reading, first: float | None, total: float) -> str:
    upstream = answer.headers.get("x-aigw-model", "")
    provider = answer.headers.get("x-aigw-provider", "")
    who = model if upstream in ("", model) else f"{model} = {upstream}"
    parts = [f"{who} ({provider})" if provider else who]
    counts = [f"{count:,} {way}" for count, way in ((reading.input, "in"), (reading.output, "out")) if count is not None]
    if counts:
        parts.append(f"{' + '.join(counts)} tokens")
    if first is not None and answer.streams:
        parts.append(f"first after {figures.duration(round(first * 1e6))}")
    parts.append(f"{figures.duration(round(total * 1e6))} in all")
    return ", ".join(parts)
