"""Values of flags: what is taken, and what is refused with a sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.control import cli, settings
from fairlead.control.settings import SettingError
from fairlead.control.source_setup import check_urls


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (settings.address, "off", None),
        (settings.address, "[::1]:80", ("::1", 80)),
        (settings.address, ":80", ("127.0.0.1", 80)),
        (settings.seconds, "500ms", 0.5),
        (settings.seconds, "24h", 86400.0),
        (settings.workload_name, "shop/web-1", "shop/web-1"),
        (settings.workload_name, "web-1", "web-1"),
        (settings.host, "10.0.0.1", "10.0.0.1"),
        (settings.host, "::1", "::1"),
        (settings.host, "app_1.local", "app_1.local"),
        (settings.host, "", ""),
        (settings.trust_domain, "cluster.local", "cluster.local"),
        (settings.control_url, "https://control:15012/", "https://control:15012"),
        (settings.control_url, "unix:///run/fairlead.sock", "http+unix://%2Frun%2Ffairlead.sock"),
    ],
)
def test_a_good_value_is_taken(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (settings.address, "80x"),
        (settings.address, "host:99999"),
        (settings.seconds, "-1s"),
        (settings.seconds, "nan"),
        (settings.seconds, "inf"),
        (settings.seconds, "9999999999h"),
        (settings.workload_name, "a/b/c"),
        (settings.workload_name, "/b"),
        (settings.workload_name, "a/"),
        (settings.workload_name, "a b/c"),
        (settings.workload_name, "a/b\n"),
        (settings.host, "foo:80"),
        (settings.host, "a b"),
        (settings.host, "a..b"),
        (settings.trust_domain, "a b"),
        (settings.trust_domain, "A"),
        (settings.trust_domain, ""),
    ],
)
def test_a_bad_value_is_refused_with_what_is_expected(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        read(text)


def parsed(environment: dict[str, str], *arguments: str) -> argparse.Namespace:
    """Two verbs: `run`, whose options are of every kind, and `other`."""

    class Told(settings.Parser):
        pass

    Told.environment = environment
    parser = Told(prog="fairlead")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run, other = verbs.add_parser("run"), verbs.add_parser("other")
    run.add_argument("--data-dir", required=True, help="where")
    run.add_argument("--control", action="append", default=[])
    run.add_argument("-H", "--header", action="append", type=settings.header, default=[])
    run.add_argument("-o", "--output", choices=("text", "json"), default="text")
    run.add_argument("--wait", type=settings.seconds, default="1s")
    run.add_argument("--port", type=int)
    run.add_argument("--follow", action="store_true")
    other.add_argument("-o", "--output", choices=("yaml",), default="yaml")
    return parser.parse_args(arguments)


def test_without_environment_defaults_hold_and_lists_are_collected() -> None:
    found = parsed({}, "run", "--data-dir", "d", "--control", "a", "--control", "b")
    assert (found.control, found.header, found.output, found.wait, found.follow) == (["a", "b"], [], "text", 1.0, False)
    assert parsed({}, "run", "--data-dir", "d").control == []


def test_the_environment_takes_the_place_of_defaults_and_of_what_is_required() -> None:
    found = parsed(
        {
            "FAIRLEAD_DATA_DIR": "d", "FAIRLEAD_CONTROL": "a,b,", "FAIRLEAD_HEADER": "x: 1,y:2",
            "FAIRLEAD_OUTPUT": "json", "FAIRLEAD_WAIT": "5m", "FAIRLEAD_PORT": "80", "FAIRLEAD_FOLLOW": "Yes",
        },
        "run",
    )  # fmt: skip
    assert (found.data_dir, found.control, found.header) == ("d", ["a", "b"], [("x", "1"), ("y", "2")])
    assert (found.output, found.wait, found.port, found.follow) == ("json", 300.0, 80, True)


def test_the_command_line_takes_the_place_of_the_environment() -> None:
    environment = {
        "FAIRLEAD_DATA_DIR": "d",
        "FAIRLEAD_CONTROL": "a,b",
        "FAIRLEAD_OUTPUT": "json",
        "FAIRLEAD_FOLLOW": "0",
    }
    found = parsed(environment, "run", "--control", "c", "--control", "d", "-o", "text", "--follow", "--data-dir", "e")
    assert (found.control, found.output, found.follow, found.data_dir) == (["c", "d"], "text", True, "e")


def test_what_the_environment_says_gives_way_to_a_flag_that_excludes_it() -> None:
    environment = {"FAIRLEAD_CONTROL": "a", "FAIRLEAD_DATA_DIR": "d"}
    found = parsed(environment, "run", "--port", "80")
    settings.give_way(found, "control", "port")
    assert found.control == []
    for kept in (parsed(environment, "run"), parsed(environment, "run", "--port", "80", "--control", "b")):
        before = list(kept.control)
        settings.give_way(kept, "control", "port")
        assert kept.control == before
    from_both = parsed({**environment, "FAIRLEAD_PORT": "80"}, "run")
    settings.give_way(from_both, "control", "port")
    assert from_both.control == ["a"]


def test_an_empty_variable_is_as_none() -> None:
    assert parsed({"FAIRLEAD_OUTPUT": ""}, "run", "--data-dir", "d").output == "text"
    with pytest.raises(SystemExit):
        parsed({"FAIRLEAD_DATA_DIR": ""}, "run")


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("FAIRLEAD_OUTPUT", "xml", "expected one of text, json, got 'xml'"),
        ("FAIRLEAD_WAIT", "soon", "expected a duration"),
        ("FAIRLEAD_HEADER", "x: 1,y", "expected 'name: value', got 'y'"),
        ("FAIRLEAD_PORT", "http", "invalid value 'http'"),
        ("FAIRLEAD_FOLLOW", "perhaps", "expected one of 1, 0, true, false, yes, no, got 'perhaps'"),
    ],
)
def test_a_bad_variable_is_named_with_what_is_expected_by_the_verb_that_reads_it(
    variable: str, text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed({variable: text}, "run", "--data-dir", "d")
    assert caught.value.code == settings.USAGE
    assert f"fairlead run: {variable}: {expected}" in capsys.readouterr().err
    if variable != "FAIRLEAD_OUTPUT":
        assert parsed({variable: text}, "other").output == "yaml"


def test_help_names_the_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed({}, "run", "--help")
    assert "where [FAIRLEAD_DATA_DIR]" in capsys.readouterr().out


def test_labels_and_headers_are_read() -> None:
    assert settings.labels("a=1,b = x=y,") == {"a": "1", "b": "x=y"}
    assert settings.labels("") == {}
    assert settings.header("X-A:  b: c ") == ("X-A", "b: c")
    for read, text in (
        (settings.labels, "a"),
        (settings.labels, "=1"),
        (settings.header, "a"),
        (settings.header, " : b"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            read(text)


@pytest.mark.parametrize("text", ["foo", "http://", "http://[:1", "http://a:x", "http://a b", "ftp://a", "http://a:0"])
def test_a_control_url_that_nobody_could_connect_to_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="--control: expected http://HOST:PORT"):
        settings.control_url(text)


@pytest.mark.parametrize("url", ["http://a:x", "http://::::", "http://x y", "foo://a", "http://"])
def test_a_source_that_nobody_could_connect_to_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="consul: expected HOST:PORT"):
        check_urls("consul", [url])


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(SettingError, match="etcd: expected"):
        check_urls("etcd", [])


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"two words", b"line\r\nx-injected: 1", b"n\xc3\xa9"])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "token").write_bytes(data)
    with pytest.raises(ValueError):
        settings.bearer_token(str(tmp_path / "token"))


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"abc.def\n")
    assert settings.bearer_token(str(tmp_path / "token")) == "abc.def"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["aply"], "fairlead: argument VERB: invalid choice: 'aply'; did you mean apply?"),
        (["policy", "mtrix"], "fairlead policy: argument VERB: invalid choice: 'mtrix'; did you mean matrix?"),
        (["get", "pods", "-o", "yml"], "fairlead get: argument -o/--output: invalid choice: 'yml'; did you mean yaml?"),
        (["control", "--listn", "x"], "fairlead control: unrecognized arguments: --listn x; did you mean --listen?"),
        (["policy", "matrix", "-x"], "fairlead policy matrix: unrecognized arguments: -x\nTry 'fairlead policy matrix"),
        (["get", "pods", "a", "b"], "fairlead get: unrecognized arguments: b"),
    ],
)
def test_what_is_misspelt_is_answered_with_what_is_near_by_the_verb_that_it_was_said_to(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == settings.USAGE
    assert capsys.readouterr().err.startswith(said)


def test_every_flag_of_every_verb_is_explained() -> None:
    def parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
        found = [parser]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += [one for child in action.choices.values() for one in parsers(child)]
        return found

    silent = [
        f"{parser.prog} {'/'.join(action.option_strings)}"
        for parser in parsers(cli.build())
        for action in parser._actions
        if action.option_strings and not action.help
    ]
    assert silent == []


def test_a_number_has_its_noun_in_the_right_form() -> None:
    counted = [settings.counted(n, noun) for n, noun in ((1, "entry"), (0, "entry"), (2, "day"), (1200, "item"))]
    assert counted == ["1 entry", "0 entries", "2 days", "1,200 items"]


def test_errors_of_the_system_are_said_without_their_numbers(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "gone").read_text()
    assert settings.why(caught.value) == f"{tmp_path / 'gone'}: No such file or directory"
    assert settings.why(ValueError("so")) == "so"
    assert settings.why(TimeoutError()) == "TimeoutError"
