# syntax=docker/dockerfile:1
# Two stages: one installs, exactly what the lock's hashes say, and compiles lb's hot modules (LB_COMPILE=0: it does
# not); the other carries only what runs. The interpreter of the base image is built with optimisation.
#
#   docker build -t lb .
#   docker run --read-only --tmpfs /tmp -v lb-state:/var/lib/lb -v ./deploy:/etc/lb:ro -p 8080:8080 lb
#
# with a `backends.yaml` in ./deploy whose targets the container reaches, and `state_dir: /var/lib/lb` in it.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/lb
ARG LB_COMPILE=1
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# The locks change more rarely than the code: their layer is built first and kept. The compiler stays out of the image.
COPY requirements.lock requirements-compile.lock ./
RUN /opt/lb/bin/pip install --require-hashes -r requirements.lock \
 && /opt/lb/bin/pip install --target /opt/compiler --require-hashes -r requirements-compile.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY build_backend ./build_backend
COPY lb ./lb
RUN PYTHONPATH=/opt/compiler /opt/lb/bin/pip install --no-deps --no-build-isolation . \
 && /opt/lb/bin/pip uninstall --yes setuptools pip
# The root file system is read-only later: what Python would compile at first use is compiled now.
RUN /opt/lb/bin/python -m compileall -q /opt/lb/lib

FROM python:${PYTHON}-slim
# A fixed number, so that `runAsNonRoot` can see that it is not 0, and volumes can be given to it.
RUN groupadd --gid 10001 lb \
 && useradd --uid 10001 --gid lb --home-dir /var/lib/lb --shell /usr/sbin/nologin lb \
 && install -d -o lb -g lb /var/lib/lb /etc/lb
COPY --from=build /opt/lb /opt/lb
ENV PATH=/opt/lb/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LB_ADMIN=http://127.0.0.1:9900 \
    STATE_DIRECTORY=/var/lib/lb
USER 10001:10001
# Switches, drains and events are kept in `state_dir`: name /var/lib/lb there and keep it in a volume.
WORKDIR /var/lib/lb
VOLUME ["/var/lib/lb"]
EXPOSE 8080 9900
STOPSIGNAL SIGTERM
# /livez, not /readyz: a front door whose backends are all down must not be restarted for it. bash asks in 2 ms of CPU,
# where Python's own client takes 100 to start; only TLS needs that one. LB_ADMIN names another port.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
  CMD ["bash", "-c", "case $LB_ADMIN in http://*) at=${LB_ADMIN#http://} && exec 3<>/dev/tcp/${at%:*}/${at##*:} && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ code _ <&3 && [ \"$code\" = 200 ];; *) exec python -c 'import os, ssl, sys, urllib.request as u; sys.exit(u.urlopen(os.environ[\"LB_ADMIN\"] + \"/livez\", timeout=2, context=ssl.create_default_context(cafile=os.environ.get(\"LB_ADMIN_CA\"))).status != 200)';; esac"]
ENTRYPOINT ["lb"]
CMD ["run", "/etc/lb/backends.yaml"]
