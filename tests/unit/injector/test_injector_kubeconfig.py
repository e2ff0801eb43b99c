"""Kubeconfigs: what of one is taken, what is refused and why, with the line of each fault."""

from __future__ import annotations

import base64
from pathlib import PurePosixPath

import pytest

from injector.kubeconfig import Source, read_kubeconfig
from proxy.errors import ConfigError

FILES = {
    "/home/me/.kube/ca.crt": b"CA\n",
    "/home/me/.kube/me.crt": b"CRT\n",
    "/etc/me.key": b"KEY\n",
    "/empty": b"",
    "/token": b"t1\n",
}
PATH = "/home/me/.kube/config"


def load(path: str, name: str) -> bytes:
    try:
        return FILES[str(PurePosixPath(path).parent / name)]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory") from None


def config(cluster: str = "server: https://api.example:6443", user: str = "token: secret") -> bytes:
    """Make a kubeconfig; the cluster's members stand in line 5, the user's in line 8."""
    return f"""\
apiVersion: v1
current-context: test
clusters:
- name: c
  cluster: {{{cluster}}}
users:
- name: u
  user: {{{user}}}
contexts:
- name: test
  context: {{cluster: c, user: u, namespace: shop}}
- name: other
  context: {{cluster: c2, user: u}}
""".encode()


def faults(*texts: bytes, context: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_kubeconfig([Source(path=PATH, data=text) for text in texts], context, load)
    return [str(fault).removeprefix(f"{PATH}:") for fault in caught.value.faults]


def test_a_token_and_roots_from_files_that_stand_beside_the_kubeconfig() -> None:
    text = config("server: 'https://api.example:6443/', certificate-authority: ca.crt", "tokenFile: /token, token: old")
    server = read_kubeconfig([Source(path=PATH, data=text)], None, load)
    assert (server.url, server.ca, server.token) == ("https://api.example:6443", "CA\n", "t1")
    assert "t1" not in repr(server)


def test_data_in_the_kubeconfig_counts_before_files() -> None:
    encoded = base64.b64encode(b"INLINE\n").decode()
    user = f"client-certificate: missing, client-certificate-data: {encoded}, client-key: /etc/me.key"
    server = read_kubeconfig([Source(path=PATH, data=config(user=user))], None, load)
    assert server.certificate == "INLINE\n\nKEY\n"
    assert "KEY" not in repr(server)


def test_another_context_than_the_current_one() -> None:
    assert faults(config(), context="other") == [
        '12:3: context "other" names the cluster "c2", and there is none; add it under `clusters`'
    ]
    assert faults(config(), context="tset") == ['1:1: there is no context "tset"; did you mean `test`?']


def test_of_several_files_the_first_that_has_a_name_counts() -> None:
    first = b"clusters: [{name: c, cluster: {server: 'https://first.example'}}]\n"
    server = read_kubeconfig([Source(path=PATH, data=first), Source(path="/b", data=config())], None, load)
    assert (server.url, server.token) == ("https://first.example", "secret")
    empty = b"contexts: null\nclusters: null\nusers: null\ncurrent-context: ''\n"
    assert read_kubeconfig([Source(path=PATH, data=empty), Source(path="/b", data=config())], None, load).token


@pytest.mark.parametrize(
    ("cluster", "user", "wanted"),
    [
        ("", "token: x", '4:3: cluster "c" lacks the key `server`'),
        (
            "server: 'https://a', insecure-skip-tls-verify: true",
            "token: x",
            '5:60: `insecure-skip-tls-verify` of cluster "c" would show our token to whoever answers; write the '
            "cluster's roots as `certificate-authority-data`",
        ),
        (
            "server: 'https://a', proxy-url: 'http://p'",
            "token: x",
            '5:45: `proxy-url` of cluster "c" is not supported; run `kubectl proxy` and give --kube '
            "http://127.0.0.1:8001",
        ),
        (
            "server: 'https://a', certificate-authority: nowhere.crt",
            "token: x",
            '5:57: `certificate-authority` of cluster "c": nowhere.crt cannot be read (No such file or '
            "directory); put the file there",
        ),
        (
            "server: 'https://a', certificate-authority: /empty",
            "token: x",
            '5:57: the file of `certificate-authority` of cluster "c" is empty; write the PEM into it',
        ),
        (
            "server: 'https://a', certificate-authority-data: ''",
            "token: x",
            '5:62: `certificate-authority-data of cluster "c"` is empty text; write a value, or leave it out',
        ),
        (
            "server: 'https://a', certificate-authority-data: '%%%'",
            "token: x",
            '5:62: `certificate-authority-data` of cluster "c" is no PEM in base64; write what `base64 -w0 FILE` '
            "prints, or name the file by `certificate-authority`",
        ),
        (
            "server: 'https://a'",
            "client-key: /etc/me.key",
            '7:3: user "u" needs client-certificate and client-key, and has one of them',
        ),
        ("server: 'https://a'", "token: [x]", '8:17: `token of user "u"` must be text, not a list'),
    ],
)
def test_a_fault_is_named_with_its_line(cluster: str, user: str, wanted: str) -> None:
    (fault,) = faults(config(cluster, user))
    assert fault.startswith(wanted)


@pytest.mark.parametrize("key", ["exec: {command: aws}", "auth-provider: {name: gcp}"])
def test_programs_are_refused_with_what_to_do_instead(key: str) -> None:
    (fault,) = faults(config(user=key))
    word = key.split(":")[0]
    assert fault.startswith(
        f'8:{len("  user: {" + word + ": ") + 1}: `{word}` of user "u" is not supported; run `kubectl proxy`'
    )
    assert "kubectl create token" in fault


def test_a_user_of_another_s_name_and_a_password_are_refused() -> None:
    assert ["password" in each or "as" in each for each in faults(config(user="as: root, password: x"))] == [True, True]


def test_every_fault_is_told_at_once() -> None:
    found = faults(config("insecure-skip-tls-verify: true", "exec: {command: x}"))
    assert len(found) == 3


def test_one_fault_is_told_once() -> None:
    assert len(faults(config(user="client-certificate: missing, client-key: /etc/me.key"))) == 1


def test_a_second_document_is_a_fault() -> None:
    assert faults(config() + b"---\nkind: Config\n") == ["15:1: a kubeconfig has one document; join the documents"]


def test_an_empty_file_has_nothing_to_say_beside_another() -> None:
    sources = [Source(path="/empty", data=b"---\n"), Source(path=PATH, data=config())]
    assert read_kubeconfig(sources, None, load).token == "secret"


def test_a_switch_that_is_off_is_no_fault() -> None:
    text = config("server: 'https://a', insecure-skip-tls-verify: false")
    assert read_kubeconfig([Source(path=PATH, data=text)], None, load).url == "https://a"


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"contexts: {a: b}", b"contexts: [5]", b"contexts: [{}]", b"\xff"])
def test_what_is_no_kubeconfig_is_a_fault(text: bytes) -> None:
    assert faults(text)
