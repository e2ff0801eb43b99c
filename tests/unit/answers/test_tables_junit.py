"""JUnit XML that any reader takes, whatever stands in a name."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from answers_sets import ORDERS, world

from proxy.answers.testing.junit import junit
from proxy.answers.testing.tables import read_table, run_table

TABLE = b"""
request: {identity: cluster.local/ns/demo/sa/web, host: orders.demo}
tests:
- {name: reads, request: {path: /orders/7}, expect: allow}
- {name: "<reads> & \\"writes\\" ]]> \\u0001\\u20ac", request: {path: /orders/7, method: POST}, expect: allow}
"""


def test_the_report_is_read_back() -> None:
    outcomes = run_table(world(ORDERS), read_table(TABLE, "t<&>.yaml").cases, 0.0)
    root = Xml.fromstring(junit([("t<&>.yaml", outcomes, ["0.yaml:8 a rule decides no case"])]))
    assert root.tag == "testsuites"
    (suite,) = root
    for element in (root, suite):
        assert {name: element.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
            "tests": "3",
            "failures": "2",
            "errors": "0",
            "skipped": "0",
            "time": "0",
        }
    assert suite.get("name") == "t<&>.yaml"
    reads, writes, rule = suite.findall("testcase")
    assert (reads.get("name"), reads.get("classname"), reads.find("failure")) == ("reads", "t<&>.yaml", None)
    assert writes.get("name") == '<reads> & "writes" ]]> \ufffd\u20ac'
    failure = writes.find("failure")
    assert failure is not None
    assert failure.get("message") == "expected allow, got deny 403 by none (denied_by_policy)"
    assert failure.text is not None
    assert '`methods`: saw "POST"' in failure.text
    output = writes.find("system-out")
    assert output is not None
    assert output.text is not None
    assert output.text.startswith(
        "t<&>.yaml:5\ncluster.local/ns/demo/sa/web POST /orders/7 port 8080 host orders.demo\n"
    )
    complaint = rule.find("failure")
    assert complaint is not None
    assert complaint.get("message") == "0.yaml:8 a rule decides no case"


def test_counts_are_of_each_file_and_of_all() -> None:
    outcomes = run_table(world(ORDERS), read_table(TABLE, "a.yaml").cases, 0.0)
    root = Xml.fromstring(junit([("a.yaml", outcomes, []), ("b.yaml", outcomes[:1], [])]))
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in root] == [
        ("a.yaml", "2", "1"),
        ("b.yaml", "1", "0"),
    ]
