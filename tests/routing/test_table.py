"""From a model name to a route: the order, the ties, and what callers with bad names can do to it (nothing)."""

from __future__ import annotations

import timeit
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings, strategies as st

from aigw.config import schema
from aigw.config.load import parse
from aigw.deployment import Deployment, Route
from aigw.errors import CallerError
from aigw.routing.table import MAX_NAME, Claimant, Named, Shadowed, Table

OPENAI = Claimant(
    name="openai", kind="openai", prefixes=("gpt-", "o1", "text-embedding-", "ft:gpt-"), weak_prefixes=("whisper-",)
)
DASHSCOPE = Claimant(name="dashscope", kind="dashscope", prefixes=("qwen", "text-embedding-v"))
MOONSHOT = Claimant(name="moonshot", kind="moonshot", prefixes=("kimi-", "moonshot-v1"))
MOONSHOT_INTL = Claimant(name="moonshot-intl", kind="moonshot-intl", prefixes=("kimi-", "moonshot-v1"))
DEEPSEEK = Claimant(name="deepseek", kind="deepseek", prefixes=("deepseek-",))
BEDROCK = Claimant(name="bedrock", kind="bedrock", prefixes=("anthropic.",))
OLLAMA = Claimant(name="ollama", kind="ollama", prefixes=("qwen3:", "gemma3:"), weak_prefixes=("llama",), local=True)
OPENROUTER = Claimant(name="openrouter", kind="openrouter")
GROQ = Claimant(name="groq", kind="groq")


def route(*providers: str, model: str | None = None) -> schema.Route:
    return schema.Route(targets=tuple(schema.RouteTarget(provider=provider, model=model) for provider in providers))


def goes(table: Table, model: str) -> tuple[str, str | None, str]:
    """Where *model* goes: provider, upstream model, how it was found."""
    found = table.resolve(model)
    return found.targets[0].provider, found.targets[0].model, found.source


def refusal(table: Table, model: str) -> str:
    with pytest.raises(CallerError) as caught:
        table.resolve(model)
    assert (caught.value.code, caught.value.status, caught.value.param) == ("caller_model_not_found", 404, "model")
    return caught.value.message


def test_the_steps_in_order() -> None:
    """Exact route, provider/model, pattern, live list, catalog prefix: whoever comes first in that order answers."""
    name = "openai/gpt-6"
    routes = {name: route("a"), "openai*": route("b"), "gpt-*": route("c")}
    table = Table(routes, [OPENAI, GROQ])
    assert goes(table, name) == ("a", None, "route")
    assert goes(table, "openai/gpt-7") == ("openai", "gpt-7", "provider/model")
    assert goes(table, "gpt-6") == ("c", None, "pattern")
    without_routes = Table({}, [OPENAI, GROQ])
    without_routes.set_live("groq", ["whisper-large", "gpt-oss-120b"])
    assert goes(without_routes, "whisper-large") == ("groq", None, "live")
    assert goes(without_routes, "gpt-6") == ("openai", None, "catalog")
    assert "no route or provider" in refusal(without_routes, "claude-5")


def test_a_route_is_carried_over_whole() -> None:
    """All that an operator writes in a route arrives in the Route."""
    config = parse(
        """
        [providers.deepseek]
        [providers.openai]
        [routes.fast]
        targets = [{provider = "deepseek", weight = 90}, {provider = "openai", model = "gpt-6-luna", weight = 10}]
        fallback = [{provider = "openai", model = "gpt-6-sol"}]
        retries = 3
        response_model = "requested"
        connect_timeout = 1
        first_byte_timeout = 2
        stream_idle_timeout = 3
        timeout = 4
        """
    )
    assert Table(config.routes, [DEEPSEEK, OPENAI]).resolve("fast") == Route(
        name="fast",
        targets=(Deployment(provider="deepseek", weight=90), Deployment(provider="openai", model="gpt-6-luna", weight=10)),
        fallback=(Deployment(provider="openai", model="gpt-6-sol"),),
        source="route",
        retries=3,
        response_model="requested",
        connect_timeout=1,
        first_byte_timeout=2,
        stream_idle_timeout=3,
        timeout=4,
    )


def test_the_default_model_is_just_a_route() -> None:
    """ "default" means the route of that name, and nothing when there is none."""
    assert goes(Table({"default": route("openai", model="gpt-6")}, [OPENAI]), "default") == ("openai", "gpt-6", "route")
    refusal(Table({}, [OPENAI]), "default")


@pytest.mark.parametrize("reverse", [False, True])
def test_the_most_specific_pattern_wins(reverse: bool) -> None:
    """Globs by their literal characters, then regular expressions, then catch-alls, whatever the order of the file."""
    written = ["*", "re:^gpt-[56]", "gpt-*", "gpt-6-*", "gpt-?-sol*", "?*"]
    table = Table({name: route("p") for name in (reversed(written) if reverse else written)}, [])
    taken = {model: table.resolve(model).name for model in ("gpt-6-sol", "gpt-6-x", "gpt-4-sol", "gpt-4", "xgpt-5")}
    assert taken == {
        "gpt-6-sol": "gpt-?-sol*",
        "gpt-6-x": "gpt-6-*",
        "gpt-4-sol": "gpt-?-sol*",
        "gpt-4": "gpt-*",
        "xgpt-5": "?*",
    }


def test_equal_patterns_go_by_the_file() -> None:
    """Two regular expressions, or two globs of one weight: the first written."""
    table = Table({"re:6": route("a"), "re:^gpt": route("b"), "g*6": route("c"), "*t6": route("d")}, [])
    assert table.resolve("gpt-6").name == "g*6"
    assert table.resolve("xt6").name == "*t6"
    assert table.resolve("x6").name == "re:6"
    assert table.resolve("gpt-").name == "re:^gpt"


def test_a_pattern_keeps_the_requested_name() -> None:
    """One Route serves all names of a pattern; its target without a model keeps what was asked for."""
    table = Table({"gpt-*": route("openai")}, [])
    assert table.resolve("gpt-6") is table.resolve("gpt-7")
    assert table.resolve("gpt-6").targets[0].model is None
    assert (table.resolve("gpt-6").name, table.resolve("gpt-6").source) == ("gpt-*", "pattern")


def test_provider_slash_model_strips_the_provider_only() -> None:
    """Further slashes belong to the model; nothing behind the slash is no model."""
    table = Table({}, [OPENROUTER, OPENAI])
    assert goes(table, "openrouter/openai/gpt-6") == ("openrouter", "openai/gpt-6", "provider/model")
    assert goes(table, "openrouter//x") == ("openrouter", "/x", "provider/model")
    refusal(table, "openrouter/")
    refusal(table, "/gpt-6")
    assert goes(table, "OpenRouter/x") == ("openrouter", "x", "catalog")  # the kind's name is a prefix, so whatever the case


def test_a_listed_name_with_a_slash() -> None:
    """Among the one who lists it and the one whose name it begins with, the first in the config has it."""
    for providers, expected in (
        ([OPENROUTER, OPENAI], ("openrouter", None, "live")),
        ([OPENAI, OPENROUTER], ("openai", "gpt-6", "provider/model")),
    ):
        table = Table({}, providers)
        table.set_live("openrouter", ["openai/gpt-6"])
        assert goes(table, "openai/gpt-6") == expected
        assert goes(table, "openai/gpt-7") == ("openai", "gpt-7", "provider/model")


def test_a_providers_own_name_in_its_list() -> None:
    """ "openrouter/auto" is a model of openrouter, so it goes there whole."""
    table = Table({}, [OPENROUTER])
    assert goes(table, "openrouter/auto") == ("openrouter", "auto", "provider/model")
    table.set_live("openrouter", ["openrouter/auto"])
    assert goes(table, "openrouter/auto") == ("openrouter", None, "provider/model")
    assert goes(table, "openrouter/openrouter/auto") == ("openrouter", "openrouter/auto", "provider/model")


def test_a_pattern_that_spells_the_provider_out() -> None:
    """A route for "openai/*" is obeyed, although openai is a provider; a catch-all leaves openai/... to openai."""
    table = Table({"openai/*": route("azure"), "*": route("ollama")}, [OPENAI, DEEPSEEK])
    assert goes(table, "openai/gpt-6") == ("azure", None, "pattern")
    assert goes(table, "deepseek/r1") == ("deepseek", "r1", "provider/model")
    assert goes(table, "anything/else") == ("ollama", None, "pattern")


def test_prefixes_ignore_case_and_the_longest_wins() -> None:
    """text-embedding-v4 is dashscope's although openai claims text-embedding-, and QWEN is qwen."""
    table = Table({}, [OPENAI, DASHSCOPE])
    assert goes(table, "text-embedding-v4") == ("dashscope", None, "catalog")
    assert goes(table, "text-embedding-3-small") == ("openai", None, "catalog")
    assert goes(table, "QWEN-Max") == ("dashscope", None, "catalog")
    assert goes(table, "GPT-6") == ("openai", None, "catalog")


def test_a_name_with_a_tag_prefers_the_local_server() -> None:
    """name:tag is how local servers write models; a version of Bedrock and a fine-tune of OpenAI only look alike."""
    table = Table({}, [DEEPSEEK, OPENAI, BEDROCK, DASHSCOPE, OLLAMA])
    assert goes(table, "deepseek-r1:7b") == ("ollama", None, "catalog")
    assert goes(table, "qwen3:8b") == ("ollama", None, "catalog")
    assert goes(table, "unheard-of:latest") == ("ollama", None, "catalog")
    assert goes(table, "anthropic.claude-v1:0") == ("bedrock", None, "catalog")
    assert goes(table, "ft:gpt-4o:org::id") == ("openai", None, "catalog")
    assert goes(table, "ft:gpt-4o") == ("openai", None, "catalog")
    assert goes(Table({}, [DEEPSEEK]), "deepseek-r1:7b") == ("deepseek", None, "catalog")


def test_a_local_server_knows_latest_without_the_tag() -> None:
    """A server that lists "phi9:latest" has "phi9"; one that is not local does not."""
    table = Table({}, [OLLAMA, GROQ])
    table.set_live("ollama", ["phi9:latest"])
    table.set_live("groq", ["tiny:latest"])
    assert goes(table, "phi9") == ("ollama", None, "live")
    refusal(table, "tiny")


def test_a_twin_claims_the_same_prefixes() -> None:
    """Either side of the border serves kimi; with both, the first in the config."""
    assert goes(Table({}, [MOONSHOT_INTL]), "kimi-k3")[0] == "moonshot-intl"
    assert goes(Table({}, [MOONSHOT_INTL, MOONSHOT]), "kimi-k3")[0] == "moonshot-intl"
    assert goes(Table({}, [MOONSHOT, MOONSHOT_INTL]), "kimi-k3")[0] == "moonshot"


def test_an_address_is_cut_off() -> None:
    """The kind's own name and its namespaces are no part of the model."""
    table = Table({}, [Claimant(name="work", kind="together", namespaces=("together_ai/",))])
    assert goes(table, "together/Meta/llama") == ("work", "Meta/llama", "catalog")
    assert goes(table, "Together_AI/x") == ("work", "x", "catalog")
    refusal(table, "together/")


def test_open_weights_are_not_the_vendors() -> None:
    """gpt-oss looks like OpenAI's and is served by anybody but OpenAI."""
    table = Table({}, [OPENAI, GROQ])
    refusal(table, "gpt-oss-120b")
    table.set_live("groq", ["gpt-oss-120b"])
    assert goes(table, "gpt-oss-120b") == ("groq", None, "live")


def test_what_is_known_beats_what_is_guessed() -> None:
    """A later provider's list takes a name from an earlier one's prefix when that is weak, or its own list lacks the name."""
    strong = Table({}, [OPENAI, GROQ])
    strong.set_live("groq", ["gpt-6", "whisper-large"])
    assert goes(strong, "gpt-6") == ("openai", None, "catalog")
    assert goes(strong, "whisper-large") == ("groq", None, "live")
    strong.set_live("openai", ["gpt-5"])
    assert goes(strong, "gpt-6") == ("groq", None, "live")
    strong.set_live("openai", ["gpt-5", "gpt-6"])
    assert goes(strong, "gpt-6") == ("openai", None, "live")
    assert goes(strong, "gpt-7") == ("openai", None, "catalog")  # lists are often incomplete


def test_models_in_the_config_count_as_listed() -> None:
    """`models = [...]` claims names before any live list is there, and stays when one comes."""
    table = Table({}, [Claimant(name="local", kind="vllm", models=("my-model",)), GROQ])
    assert goes(table, "my-model") == ("local", None, "live")
    table.set_live("local", ["other"])
    table.set_live("groq", ["my-model"])
    assert goes(table, "my-model") == ("local", None, "live")
    assert goes(table, "other") == ("local", None, "live")


def test_a_new_list_is_obeyed_at_once() -> None:
    """What was remembered, found or not, is forgotten when a list changes; an empty list says nothing."""
    table = Table({}, [GROQ, OPENROUTER])
    refusal(table, "m")
    table.set_live("openrouter", ["m"])
    assert goes(table, "m")[0] == "openrouter"
    table.set_live("groq", ["m"])
    assert goes(table, "m")[0] == "groq"
    table.set_live("groq", [])
    assert goes(table, "m")[0] == "openrouter"
    with pytest.raises(KeyError):
        table.set_live("nobody", ["m"])


def test_names_are_listed_once_with_their_owner() -> None:
    """Exact routes in their order, then what providers list; no patterns; the owner is whoever would serve it."""
    table = Table(
        {"fast": route("openai", model="gpt-6"), "x-*": route("groq"), "m": route("groq", "openai")},
        [Claimant(name="openai", kind="openai", models=("gpt-6", "m")), GROQ],
    )
    table.set_live("groq", ["z", "gpt-6", "a", "x-1", "bad\nname", ""])
    assert table.names() == [
        Named("fast", "openai", "route"),
        Named("m", "groq", "route"),
        Named("gpt-6", "openai", "live"),
        Named("a", "groq", "live"),
        Named("x-1", "groq", "pattern"),
        Named("z", "groq", "live"),
    ]
    assert all(table.resolve(named.id).source == named.source for named in table.names())


def test_beginnings_of_names_are_listed_with_their_owner() -> None:
    """What the catalog gives to somebody, in the config's order; of twins the first; addresses are no names."""
    openrouter = Claimant(name="router", kind="openrouter", namespaces=("openrouter/",))
    table = Table({}, [MOONSHOT_INTL, openrouter, MOONSHOT, DEEPSEEK])
    assert table.prefixes() == [
        Named("kimi-*", "moonshot-intl", "catalog"),
        Named("moonshot-v1*", "moonshot-intl", "catalog"),
        Named("deepseek-*", "deepseek", "catalog"),
    ]


def test_shadowed_claims_are_told() -> None:
    """Who lost what to whom: a model, a prefix, a name that begins with a provider's."""
    table = Table({}, [MOONSHOT, MOONSHOT_INTL, OPENROUTER, Claimant(name="openai", models=("kimi-k3",)), GROQ])
    table.set_live("openrouter", ["openai/gpt-6", "kimi-k3"])
    assert sorted(table.shadowed()) == [
        Shadowed("kimi-*", "prefix", "moonshot", "moonshot-intl"),
        Shadowed("kimi-k3", "model", "moonshot", "openai"),
        Shadowed("kimi-k3", "model", "moonshot", "openrouter"),
        Shadowed("moonshot-v1*", "prefix", "moonshot", "moonshot-intl"),
        Shadowed("openai/gpt-6", "provider/model", "openrouter", "openai"),
    ]
    assert Table({}, [OPENAI, DASHSCOPE]).shadowed() == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    """A slip of the finger gets the right name; gibberish gets a way to find out."""
    table = Table({"claude-fast": route("a")}, [OPENAI, GROQ])
    table.set_live("groq", ["llama-3.3-70b-versatile", "openai/gpt-oss-120b", "qwen/qwen3-32b"])
    assert refusal(table, "lama-3.3-70b-versatil").endswith('; did you mean "llama-3.3-70b-versatile"?')
    assert refusal(table, "Claude-Fast").endswith('; did you mean "claude-fast"?')
    assert refusal(table, "gptoss-120b").endswith('; did you mean "openai/gpt-oss-120b"?')
    assert refusal(table, "zzz").endswith("; GET /v1/models lists what can be asked for")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "the model's name is empty"),
        ("a\x1b[31m\r\nx: y", 'no route or provider has a model "a\\x1b[31m\\r\\nx: y"'),
        ("\ud800\u202e", 'a model "\\ud800\\u202e"'),
        ('"q"', 'a model "\\"q\\""'),
        ("模型", 'a model "模型"'),
        ("x" * 1_000_000, "xxx…"),
    ],
)
def test_hostile_names_are_shown_shortened_and_escaped(name: str, shown: str) -> None:
    """A name from a caller never carries control characters or a megabyte into a message, even where a pattern takes all."""
    table = Table({"*": route("p")} if len(name) > MAX_NAME or not name.isprintable() else {}, [OPENAI])
    message = refusal(table, name)
    assert shown in message
    assert message.isprintable()
    assert len(message) < 300


def test_memory_is_bounded() -> None:
    """A hundred thousand made-up names leave no more than a few thousand behind, found or not."""
    table = Table({"*": route("p")}, [])
    empty = Table({}, [OPENAI])
    for number in range(20_000):
        table.resolve(f"flood-{number}")
    for number in range(1000):
        refusal(empty, f"flood-{number}")
    assert 0 < len(table._memo) <= 2048
    assert 0 < len(empty._misses) <= 256
    huge = "x" * (MAX_NAME + 1)
    refusal(empty, huge)
    assert huge not in empty._misses


def test_a_known_name_is_the_same_route_again() -> None:
    """Built once per name, then one look into a dict: under a microsecond on any machine."""
    table = Table({}, [OPENAI])
    assert table.resolve("gpt-6") is table.resolve("gpt-6")
    assert min(timeit.repeat(lambda: table.resolve("gpt-6"), number=10_000, repeat=5)) / 10_000 < 1e-6


def test_two_providers_of_one_name_are_refused() -> None:
    """A table is never built on names that cannot be told apart."""
    with pytest.raises(ValueError, match="same name"):
        Table({}, [OPENAI, OPENAI])


# --- adding a provider never moves a name that works ---

# few names, so that claims collide often
names = st.sampled_from(
    [
        "a",
        "ab",
        "abc",
        "abcx",
        "b",
        "xa",
        "a:t",
        "ab:7",
        "x:t",
        "p0/a",
        "p1/a",
        "p2/a",
        "p3/a",
        "p1/p2/a",
        "x/a",
        "a/b",
        "p2/",
        "/a",
    ]
)
prefixes = st.lists(st.sampled_from(["a", "ab", "abc", "b", "x", "p0/", "a:"]), max_size=2, unique=True).map(tuple)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, schema.Route], list[Claimant], dict[str, list[str]], str]:
    """Routes, providers, what those list, and a name to ask for: often one that the last provider lists."""
    routes = {name: route("target") for name in draw(st.lists(st.one_of(names, names.map(lambda n: n + "*")), max_size=2))}
    count = draw(st.integers(1, 4))
    providers = [
        Claimant(
            name=f"p{number}",
            kind=draw(st.sampled_from(["", "a", "p0", "x"])),
            prefixes=draw(prefixes),
            weak_prefixes=draw(prefixes),
            local=draw(st.booleans()),
            models=tuple(draw(st.lists(names, max_size=2))),
        )
        for number in range(count)
    ]
    live = {provider.name: draw(st.lists(names, max_size=2)) for provider in providers}
    listed = live[providers[-1].name]
    return routes, providers, live, draw(st.sampled_from(listed) if listed and draw(st.booleans()) else names)


def built(routes: Mapping[str, schema.Route], providers: Sequence[Claimant], live: Mapping[str, list[str]]) -> Table:
    table = Table(routes, providers)
    for provider in providers:
        table.set_live(provider.name, live[provider.name])
    return table


def fitting(provider: Claimant, model: str) -> int:
    """Length of the provider's longest prefix that *model* begins with."""
    own = (*provider.prefixes, *provider.weak_prefixes, f"{provider.kind}/" if provider.kind else "")
    return max((len(prefix) for prefix in own if prefix and model.startswith(prefix)), default=0)


def test_a_newcomer_does_not_decide_between_two_others() -> None:
    """A prefix beats a list further down the config, whatever those who come after both claim: longer prefixes, weak or not,
    or tags."""
    first, second = Claimant(name="p0", kind="", prefixes=("a",)), Claimant(name="p1", kind="")
    newcomers = [
        Claimant(name="p2", kind="", weak_prefixes=("ab",)),
        Claimant(name="p2", kind="", prefixes=("ab",)),
        Claimant(name="p2", kind="", local=True),
    ]
    for providers in ([first, second], *([first, second, newcomer] for newcomer in newcomers)):
        table = Table({}, providers)
        table.set_live("p1", ["ab", "ab:7b"])
        for name in ("ab", "ab:7b"):
            assert goes(table, name) == ("p0", None, "catalog"), providers[-1]
    own = Claimant(name="p0", kind="", prefixes=("a",), weak_prefixes=("ab",))
    table = Table({}, [own, second])
    table.set_live("p1", ["ab"])
    assert goes(table, "ab") == ("p1", None, "live"), "its own weak prefix says that its strong one is not meant"


@settings(max_examples=400, deadline=None)
@given(worlds())
def test_adding_a_provider_never_moves_a_name_that_works(
    world: tuple[dict[str, schema.Route], list[Claimant], dict[str, list[str]], str],
) -> None:
    """With a provider more at the end of the config, each name goes where it went, unless it went there on a mere guess (a weak
    prefix, a prefix that the provider's own list denies, a shorter prefix than the new one's, a tag), or the name begins with
    the new provider's own name and neither a list nor a route spells it out."""
    routes, providers, live, model = world
    *before, newcomer = providers
    try:
        old = built(routes, before, live).resolve(model)
    except CallerError:
        return  # it did not work
    new = built(routes, providers, live).resolve(model)
    if new == old:
        return
    assert any(target.provider == newcomer.name for target in new.targets), "a name moves to the new provider or not at all"
    listed_before = any(model in (*provider.models, *live[provider.name]) for provider in before)
    if model.startswith(f"{newcomer.name}/"):
        assert not listed_before
        assert old.source != "route"
        assert old.source != "pattern" or not old.name.startswith(f"{newcomer.name}/")
        return
    assert old.source == "catalog"
    owner = next(provider for provider in before if provider.name == old.targets[0].provider)
    denied = bool(live[owner.name]) and model not in live[owner.name]
    weak = all(not model.startswith(prefix) for prefix in (*owner.prefixes, f"{owner.kind}/"))
    longest_is_weak = max((len(p) for p in owner.weak_prefixes if model.startswith(p)), default=0) > max(
        (len(p) for p in owner.prefixes if model.startswith(p)), default=0
    )
    assert denied or weak or longest_is_weak or ":" in model or fitting(newcomer, model) > fitting(owner, model)


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_what_is_listed_resolves_to_someone_who_has_it(
    world: tuple[dict[str, schema.Route], list[Claimant], dict[str, list[str]], str],
) -> None:
    """Every name in GET /v1/models works, and the table never fails in any other way than "not found"."""
    *parts, model = world
    table = built(*parts)
    for named in table.names():
        found = table.resolve(named.id)
        assert (found.targets[0].provider, found.source) == (named.owner, named.source)
    with suppress(CallerError):
        assert table.resolve(model).targets
    for claim in table.shadowed():
        assert claim.winner != claim.loser
