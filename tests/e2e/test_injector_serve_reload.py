"""The webhook's certificate is replaced under load without a failed call; a bad one changes nothing and is told."""

from __future__ import annotations

import threading

from injector_process import InjectorProcess, eventually

from tests.reviews import encoded, response_of, review_of

BODY = encoded(review_of())


def test_a_certificate_is_replaced_under_load_without_a_failed_call(injector: InjectorProcess) -> None:
    injector.start(*injector.mount())
    ended = threading.Event()
    failures: list[BaseException] = []
    answered = [0, 0]

    def call(place: int, kept: bool) -> None:
        try:
            with injector.api_server() as api:
                while not ended.is_set():
                    status, body = api.post(BODY)
                    assert status == 200
                    assert response_of(body)["allowed"]
                    answered[place] += 1
                    if not kept:
                        api.close()
        except BaseException as failure:
            failures.append(failure)

    callers = [threading.Thread(target=call, args=(place, place == 0)) for place in (0, 1)]
    for caller in callers:
        caller.start()
    try:
        for count in (2, 3, 4):
            # Callers believe the new authority before it is shown: as a caBundle is written before the certificate.
            injector.issue()
            shown = r"the webhook listener is known as [^\n]*\n"
            eventually(lambda count=count: injector.log_file.read_text().count("listener is known as") == count, shown)
            before = list(answered)
            eventually(
                lambda before=before: failures or all(a > b for a, b in zip(answered, before, strict=True)), "calls"
            )
    finally:
        ended.set()
        for caller in callers:
            caller.join()
    assert failures == []
    with injector.api_server() as api:  # the newest authority alone is enough
        injector.ca = injector.ca[injector.ca.rindex(b"-----BEGIN CERTIFICATE-----") :]
        assert api.post(BODY)[0] == 200


def test_a_pair_that_does_not_fit_keeps_the_old_one_and_is_told(injector: InjectorProcess) -> None:
    injector.start()
    good = (injector.tls / "tls.crt").read_bytes()
    (injector.tls / "tls.crt").write_bytes(b"no certificate\n")
    eventually(lambda: "rejected: webhook certificate" in injector.page("/readyz")[1], "rejected")
    assert injector.page("/readyz")[0] == 200
    with injector.api_server() as api:
        assert api.post(BODY)[0] == 200
    assert 'remora_injector_files_rejected{kind="webhook certificate"} 1.0' in injector.page("/metrics")[1]
    (injector.tls / "tls.crt").write_bytes(good)
    eventually(lambda: "rejected: " not in injector.page("/readyz")[1], "taken back")
    assert 'remora_injector_files_rejected{kind="webhook certificate"} 0.0' in injector.page("/metrics")[1]
