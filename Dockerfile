#   docker build --tag remora .
#   docker run --read-only --volume ./remora.yaml:/etc/remora/remora.yaml:ro ... remora
#
# `make image` does it with podman, reproducibly, and makes a base where no registry can be reached.
#
# A base is a Debian system, with Python 3.11 or newer in it or not: python:3.13-slim, debian:bookworm-slim, ... Its
# interpreter must be built with optimisations: the same code takes up to a quarter more CPU without.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
# The programs that set capture rules, and Debian's Python where the base has none. apt's index stays in this stage:
# the list of what is in the image takes hashes from it.
RUN apt-get update -qq \
    && if python3 -c 'import venv, ensurepip' 2>/dev/null; then python=; else python=python3-venv; fi \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates iptables netbase nftables $python
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
COPY requirements-build.lock requirements.lock ./
# Where packages come from, if pip's own settings do not say it: --secret id=pip,src=pip.conf, and a certificate that
# it names with --secret id=pip-ca,src=ca.pem. Both are gone after the step.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=pip-ca,target=/run/pip-ca.pem \
    python3 -m venv /build \
    && /build/bin/python -m pip install -q --require-hashes -r requirements-build.lock \
    && python3 -m venv --without-pip /opt/remora \
    && /build/bin/python -m pip --python /opt/remora/bin/python install -q --require-hashes --only-binary :all: \
        --no-compile --report /reports-locked.json -r requirements.lock
# --build-arg REMORA_COMPILE=1 compiles the byte path: compiler and mypy stay in this stage. Empty: pure Python.
ARG REMORA_COMPILE=
COPY requirements-test.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=pip-ca,target=/run/pip-ca.pem \
    if [ "$REMORA_COMPILE" = 1 ]; then \
        if [ "$(readlink -f "$(command -v python3)")" = "/usr/bin/$(basename "$(readlink -f /usr/bin/python3)")" ]; \
            then headers=python3-dev; else headers=; fi; \
        apt-get install -y -qq --no-install-recommends gcc libc6-dev $headers \
        && /build/bin/python -m pip install -q --require-hashes -r requirements-test.lock; \
    fi
COPY pyproject.toml README.md LICENSE remora.py setup.py ./
COPY proxy proxy
COPY injector injector
COPY certs certs
COPY demo demo
COPY benchmarks benchmarks
# The time of every file in the image, in seconds; zip archives know none before 1980.
ARG SOURCE_DATE_EPOCH=315532800
RUN export SOURCE_DATE_EPOCH PYTHONHASHSEED=0 \
    && /build/bin/python -m pip wheel -q --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/python -m pip --python /opt/remora/bin/python install -q --no-deps --no-index --no-compile \
        --report /reports-own.json /wheels/*.whl \
    && /opt/remora/bin/remora version | grep -E "optimised build|Debian's build" \
    && python3 -m injector.image.assemble --environment /opt/remora --into /image \
        --pip-report /reports-locked.json --pip-report /reports-own.json

FROM scratch
COPY --from=build /image /
ENV PATH=/opt/remora/bin:/usr/sbin:/usr/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# uid and gid of the sidecar by the convention of meshes: capture rules let its own traffic pass by this uid.
USER 1337:1337
WORKDIR /
# Outbound capture, inbound capture, health; 15000 (admin) listens on loopback only.
EXPOSE 15001 15006 15020
STOPSIGNAL SIGTERM
ENTRYPOINT ["remora"]
CMD ["proxy", "run", "--config", "/etc/remora/remora.yaml"]
