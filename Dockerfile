#   docker build --tag remora .
#   docker run --read-only --volume ./remora.yaml:/etc/remora/remora.yaml:ro ... remora
#
# The interpreter must be built with optimisations: the same code takes up to a quarter more CPU without.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
COPY requirements-build.lock requirements.lock ./
RUN python3 -m venv /build \
    && /build/bin/python -m pip install --require-hashes -r requirements-build.lock \
    && python3 -m venv --without-pip /opt/remora \
    && /build/bin/python -m pip --python /opt/remora/bin/python install --require-hashes --only-binary :all: \
        -r requirements.lock
# --build-arg REMORA_COMPILE=1 compiles the byte path: compiler and mypy stay in this stage. Empty: pure Python.
ARG REMORA_COMPILE=
COPY requirements-test.lock ./
RUN if [ "$REMORA_COMPILE" = 1 ]; then apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; fi
RUN if [ "$REMORA_COMPILE" = 1 ]; then /build/bin/python -m pip install --require-hashes -r requirements-test.lock; fi
COPY pyproject.toml README.md LICENSE remora.py setup.py ./
COPY proxy proxy
COPY injector injector
COPY certs certs
COPY demo demo
COPY benchmarks benchmarks
# Compiled once here: the root file system is read-only where it runs.
RUN /build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/python -m pip --python /opt/remora/bin/python install --no-deps --no-index /wheels/*.whl \
    && /opt/remora/bin/python -m compileall -q -j 0 /opt/remora/lib

FROM ${BASE_IMAGE}
# uid and gid of the sidecar by the convention of meshes: capture rules let its own traffic pass by this uid.
RUN groupadd --gid 1337 remora && useradd --uid 1337 --gid 1337 --no-create-home --shell /usr/sbin/nologin remora
COPY --from=build /opt/remora /opt/remora
ENV PATH=/opt/remora/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1337:1337
WORKDIR /
# Inbound capture, outbound capture, health; 15000 (admin) listens on loopback only.
EXPOSE 15001 15006 15020
STOPSIGNAL SIGTERM
ENTRYPOINT ["remora"]
CMD ["proxy", "run", "--config", "/etc/remora/remora.yaml"]
