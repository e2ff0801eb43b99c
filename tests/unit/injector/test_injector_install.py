"""`remora install` and `remora uninstall`: the same bytes each time, no secret, least rights, valid for Kubernetes."""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from certs.spiffe import TrustDomain
from injector import access, injector_cli, install_cli, names, uninstall_cli
from injector.access import Access
from injector.decision import decide
from injector.defaults import read_defaults
from injector.settings import Settings
from proxy.authority import cli as authority_cli
from proxy.authority.config import DEFAULT_AUDIENCE
from proxy.policy import PolicyDefault, PolicySettings, Workload
from proxy.policy.read import read_files
from tests import pod_security, schemas

Document = dict[str, Any]
Captured = pytest.CaptureFixture[str]
EVERYTHING = (
    "--mesh-namespace", "shop", "--mesh-namespace", "pay", "--metrics-from", "monitoring", "--replicas", "3",
    "--image", "registry.example/remora:1.2.3", "--image-pull-policy", "Always", "--trust-domain", "lab.example",
    "--failure-policy", "Ignore", "--namespace", "mesh",
)  # fmt: skip


@pytest.fixture
def printed(capsys: Captured) -> Any:
    def run(*words: str) -> str:
        assert install_cli.main(words) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return str(out)

    return run


def loaded(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


def of_kind(text: str, kind: str) -> dict[str, Document]:
    return {item["metadata"]["name"]: item for item in loaded(text) if item["kind"] == kind}


def pods_of(text: str) -> dict[str, Document]:
    return {name: item["spec"]["template"] for name, item in of_kind(text, "Deployment").items()}


def key_of(item: Mapping[str, Any]) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


@pytest.mark.parametrize("words", [(), EVERYTHING], ids=["by default", "with every option"])
def test_it_prints_the_same_bytes_each_time_and_valid_objects(printed: Any, words: tuple[str, ...]) -> None:
    text = printed(*words)
    assert printed(*words) == text
    documents = loaded(text)
    assert schemas.faults_of_all(list(documents)) == {}
    assert len({key_of(item) for item in documents}) == len(documents), "no object stands twice"


def test_each_group_has_a_line_that_says_what_it_is_for(printed: Any) -> None:
    text = printed("--mesh-namespace", "shop")
    comments = re.findall(r"^---\n# (.*)$", text, re.MULTILINE)
    assert len(comments) == 8
    assert all(comment.endswith((".", "itself.")) for comment in comments)


@pytest.mark.parametrize("words", [(), EVERYTHING], ids=["by default", "with every option"])
def test_no_key_and_no_certificate_is_printed(printed: Any, words: tuple[str, ...]) -> None:
    text = printed(*words)
    assert "caBundle:" not in text
    assert "PRIVATE KEY" not in text
    assert "BEGIN CERTIFICATE" not in text
    assert not of_kind(text, "Secret")
    for word in re.findall(r"[A-Za-z0-9+/=]{64,}", text):
        pytest.fail(f"this may be a secret: {base64.b64encode(word.encode())!r}")


def test_the_namespace_comes_first_and_the_webhook_last(printed: Any) -> None:
    documents = loaded(printed("--mesh-namespace", "shop"))
    assert key_of(documents[0]) == ("Namespace", "", names.NAMESPACE)
    assert key_of(documents[-1]) == ("MutatingWebhookConfiguration", "", names.INJECTOR)


def test_everything_but_what_has_no_namespace_is_in_ours(printed: Any) -> None:
    for item in loaded(printed(*EVERYTHING)):
        expected = {
            "Namespace": {None}, "ClusterRole": {None}, "ClusterRoleBinding": {None},
            "MutatingWebhookConfiguration": {None}, "ConfigMap": {"mesh", "shop", "pay"},
        }.get(item["kind"], {"mesh"})  # fmt: skip
        assert item["metadata"].get("namespace") in expected, key_of(item)


def test_uninstall_names_the_same_objects_the_other_way_round(printed: Any, capsys: Captured) -> None:
    made = [key_of(item) for item in loaded(printed(*EVERYTHING))]
    assert uninstall_cli.main(EVERYTHING) == 0
    gone = loaded(capsys.readouterr().out)
    assert [key_of(item) for item in gone] == made[::-1]
    assert all(set(item) == {"apiVersion", "kind", "metadata"} for item in gone)
    assert gone[0]["kind"] == "MutatingWebhookConfiguration", "or it would hold back pods whose webhook is gone"
    assert gone[-1]["kind"] == "Namespace"


# --- the pods of the control plane ---


def test_two_of_each_run_and_one_stays_while_nodes_are_drained(printed: Any) -> None:
    text = printed()
    deployments, budgets = of_kind(text, "Deployment"), of_kind(text, "PodDisruptionBudget")
    assert set(deployments) == set(budgets) == {names.AUTHORITY, names.INJECTOR}
    for name, deployment in deployments.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["replicas"] == 2
        for selector in (deployment["spec"]["selector"], budgets[name]["spec"]["selector"]):
            assert selector["matchLabels"].items() <= labels.items()
        assert budgets[name]["spec"]["maxUnavailable"] == 1


def test_its_pods_are_admitted_at_the_level_that_its_namespace_asks_for(printed: Any) -> None:
    text = printed()
    namespace = of_kind(text, "Namespace")[names.NAMESPACE]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods_of(text).values():
        assert pod_security.restricted(pod["spec"]) == []
        for _, container in pod_security.containers(pod["spec"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"]


def test_its_pods_never_get_a_sidecar(printed: Any) -> None:
    for pod in pods_of(printed()).values():
        decision = decide(
            pod["metadata"],
            pod["spec"],
            namespace=names.NAMESPACE,
            namespace_labels=None,
            own_namespace=names.NAMESPACE,
            unasked=True,
        )
        assert not decision.injects


def test_the_commands_take_the_arguments_that_the_containers_have(printed: Any) -> None:
    # argparse ends the process for a word that it does not know.
    pods = pods_of(printed(*EVERYTHING))
    authority, injector = pods[names.AUTHORITY]["spec"], pods[names.INJECTOR]["spec"]
    for container in (*authority["initContainers"], *authority["containers"]):
        command, *words = container["args"]
        assert command == "authority"
        options = authority_cli._parser().parse_args(words)
        assert options.namespace == "mesh"
        assert options.key_source == f"secret:{names.AUTHORITY_KEYS}"
    command, *words = injector["containers"][0]["args"]
    assert command == "injector"
    options = injector_cli._parser().parse_args(words)
    assert options.namespace == "mesh"
    assert options.webhook in of_kind(printed(*EVERYTHING), "MutatingWebhookConfiguration")
    assert options.service in of_kind(printed(*EVERYTHING), "Service")


def test_every_file_that_a_container_is_told_of_is_mounted(printed: Any) -> None:
    text = printed()
    maps = of_kind(text, "ConfigMap")
    for pod in pods_of(text).values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for place, container in pod_security.containers(pod["spec"]):
            mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
            for word in container["args"]:
                if word.startswith("/"):
                    assert any(word.startswith(f"{path}/") for path in mounts), (place, word)
            for volume in mounts.values():
                source = volume.get("configMap")
                assert source is None or source.get("optional") or source["name"] in maps, (place, volume)


def test_ports_of_services_containers_probes_and_arguments_agree(printed: Any) -> None:
    text = printed()
    services = of_kind(text, "Service")
    for name, pod in pods_of(text).items():
        [container] = pod["spec"]["containers"]
        declared = {port["containerPort"] for port in container["ports"]}
        assert {port["targetPort"] for port in services[name]["spec"]["ports"]} <= declared
        assert services[name]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        words = container["args"]
        listened = {int(words[words.index(flag) + 1].rpartition(":")[2]) for flag in ("--listen", "--health-listen")}
        assert listened == declared
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in declared


# --- rights ---


def test_each_account_has_the_rights_of_its_table_and_no_others(printed: Any) -> None:
    text = printed()
    for account, table in ((names.AUTHORITY, access.AUTHORITY), (names.INJECTOR, access.INJECTOR)):
        granted = []
        for kind in ("RoleBinding", "ClusterRoleBinding"):
            for binding in of_kind(text, kind).values():
                if {"kind": "ServiceAccount", "name": account, "namespace": names.NAMESPACE} in binding["subjects"]:
                    role = of_kind(text, kind.removesuffix("Binding"))[binding["roleRef"]["name"]]
                    granted += [as_access(rule, kind.startswith("Cluster")) for rule in role["rules"]]
        assert sorted(granted, key=repr) == sorted(table, key=repr)
        assert not any("*" in (*rule.verbs, rule.resource, rule.api_group) for rule in granted)
    accounts = of_kind(text, "ServiceAccount")
    assert {pod["spec"]["serviceAccountName"] for pod in pods_of(text).values()} == set(accounts)
    assert all(item["automountServiceAccountToken"] is False for item in accounts.values())


def as_access(rule: Mapping[str, Any], is_cluster_wide: bool) -> Access:
    [group], [resource] = rule["apiGroups"], rule["resources"]
    return Access(
        api_group=group,
        resource=resource,
        verbs=tuple(rule["verbs"]),
        names=tuple(rule.get("resourceNames", ())),
        is_cluster_wide=is_cluster_wide,
    )


def test_secrets_are_never_readable_outside_of_our_namespace(printed: Any) -> None:
    for role in of_kind(printed(), "ClusterRole").values():
        assert not any("secrets" in rule["resources"] for rule in role["rules"])


# --- the webhook ---


def asked_of_webhook(text: str, namespace: Mapping[str, str], pod: Mapping[str, str]) -> int:
    """How many entries of the webhook an API server shows a pod with these labels to."""
    [configuration] = of_kind(text, "MutatingWebhookConfiguration").values()
    return sum(
        matches(entry["namespaceSelector"], namespace) and matches(entry["objectSelector"], pod)
        for entry in configuration["webhooks"]
    )


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    for each in selector["matchExpressions"]:
        value = labels.get(each["key"])
        if each["operator"] == "In" and value not in each["values"]:
            return False
        if each["operator"] == "NotIn" and value in each["values"]:
            return False
        assert each["operator"] in ("In", "NotIn")
    return True


@pytest.mark.parametrize("pod", [None, "enabled", "true", "disabled", "false"])
@pytest.mark.parametrize("namespace", [None, "enabled", "true", "disabled", "false"])
@pytest.mark.parametrize("name", ["shop", "kube-system", "kube-public", "kube-node-lease", names.NAMESPACE])
def test_the_webhook_is_asked_at_most_once_and_for_each_pod_that_is_decided_for(
    printed: Any, name: str, namespace: str | None, pod: str | None
) -> None:
    above = {"kubernetes.io/metadata.name": name} | ({} if namespace is None else {names.INJECT: namespace})
    own = {} if pod is None else {names.INJECT: pod}
    asked = asked_of_webhook(printed(), above, own)
    decision = decide(
        {"labels": own},
        {"containers": []},
        namespace=name,
        namespace_labels=above,
        own_namespace=names.NAMESPACE,
        unasked=False,
    )
    assert asked == decision.injects, decision.sentence


def test_the_webhook_has_no_side_effects_and_holds_pods_back_while_it_is_gone(printed: Any) -> None:
    [configuration] = of_kind(printed(), "MutatingWebhookConfiguration").values()
    for entry in configuration["webhooks"]:
        assert entry["sideEffects"] == "None"
        assert entry["failurePolicy"] == "Fail"
        assert entry["reinvocationPolicy"] == "IfNeeded"
        assert entry["clientConfig"]["service"]["path"] == names.INJECTOR_PATH
    [ignoring] = of_kind(printed("--failure-policy", "Ignore"), "MutatingWebhookConfiguration").values()
    assert {entry["failurePolicy"] for entry in ignoring["webhooks"]} == {"Ignore"}


# --- what sidecars get ---


def test_the_defaults_are_those_of_this_installation(printed: Any) -> None:
    held = of_kind(printed(*EVERYTHING), "ConfigMap")[names.DEFAULTS]["data"]
    settings = read_defaults(held[names.DEFAULTS_FILE].encode(), "defaults.yaml")
    assert settings.image == "registry.example/remora:1.2.3"
    assert settings.image_pull_policy == "Always"
    assert settings.trust_domain == "lab.example"
    assert settings.authority == "https://remora-authority.mesh:8443"
    assert settings.authority_identity == "spiffe://lab.example/ns/mesh/sa/remora-authority"
    assert settings.token_audience == Settings().token_audience == DEFAULT_AUDIENCE, "what the authority asks for"


def test_lines_of_a_defaults_file_are_carried(printed: Any, tmp_path: Path) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text("log-level: debug\nimage: registry.example/other:1\npolicy-config-map: our-policy\n")
    text = printed("--defaults", str(file), "--mesh-namespace", "shop")
    held = of_kind(text, "ConfigMap")[names.DEFAULTS]["data"][names.DEFAULTS_FILE]
    settings = read_defaults(held.encode(), "defaults.yaml")
    assert (settings.log_level, settings.image) == ("debug", "registry.example/other:1")
    assert {pod["spec"]["containers"][0]["image"] for pod in pods_of(text).values()} == {"registry.example/other:1"}
    assert "our-policy" in of_kind(text, "ConfigMap"), "the name by which sidecars mount it"


def test_a_namespace_begins_with_mutual_tls_alone_and_nobody_allowed(printed: Any) -> None:
    maps = [item for item in loaded(printed(*EVERYTHING)) if item["kind"] == "ConfigMap"]
    for namespace in ("shop", "pay"):
        [policy] = [item for item in maps if key_of(item)[1:] == (namespace, names.POLICY)]
        found = read_policies(policy["data"], namespace)
        assert [each.mode.name for each in found.peer_authentication] == ["STRICT"]
        [deny] = found.authorization
        assert deny.action.name == "ALLOW"
        assert deny.rules == ()
        [services] = [item for item in maps if key_of(item)[1:] == (namespace, names.SERVICES)]
        assert yaml.safe_load(services["data"][names.SERVICES_FILE]) == {"services": []}


def read_policies(data: Mapping[str, str], namespace: str) -> Any:
    workload = Workload(
        namespace=namespace, labels={}, service_account="default", name="any", trust_domain=TrustDomain("cluster.local")
    )
    found, faults, warnings = read_files(
        {k: v.encode() for k, v in data.items()}, workload, PolicySettings(default=PolicyDefault.DENY)
    )
    assert (faults, warnings) == ([], [])
    return found


# --- bad options ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--namespace", "kube-system"], "--namespace kube-system belongs to Kubernetes"),
        (["--namespace", "Mesh"], "--namespace 'Mesh': write the name of a namespace"),
        (["--mesh-namespace", "remora-system"], "--mesh-namespace remora-system: its pods never get a sidecar"),
        (["--mesh-namespace", "kube-public"], "--mesh-namespace kube-public: its pods never get a sidecar"),
        (["--metrics-from", "a b"], "--metrics-from 'a b'"),
        (["--image", "a b"], "--image 'a b': write a reference"),
        (["--image-pull-policy", "Never!"], "--image-pull-policy 'Never!'"),
        (["--trust-domain", "No!"], "--trust-domain 'No!'"),
        (["--replicas", "0"], "--replicas '0': write an integer from 1 to 9"),
        (["--defaults", "missing.yaml"], "missing.yaml: No such file"),
    ],
)
@pytest.mark.parametrize("main", [install_cli.main, uninstall_cli.main], ids=["install", "uninstall"])
def test_options_that_make_no_plan_are_refused_with_the_mend(
    capsys: Captured, main: Any, words: list[str], said: str
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_all_bad_options_are_told_at_once(capsys: Captured) -> None:
    assert install_cli.main(["--replicas", "0", "--namespace", "A", "--image", ""]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_defaults_file_does_not_decide_what_the_installation_decides(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text("trust-domain: other.example\nauthority: https://there:1\n")
    assert install_cli.main(["--defaults", str(file)]) == 2
    err = capsys.readouterr().err
    assert f"{file}: `trust-domain` is decided by the installation" in err
    assert f"{file}: `authority` is decided by the installation" in err


def test_installation_reads_no_clock_and_no_chance() -> None:
    for path in (Path(install_cli.__file__).parent / "install").glob("*.py"):
        imported = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
        assert not imported & {"time", "datetime", "random", "secrets", "os", "uuid", "socket"}, path
