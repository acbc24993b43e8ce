# A GPU node: a Ray worker with SGLang in an environment of its own, so that their dependencies never meet.
# Build from the repository's root:  docker build -f deploy/images/engine.Dockerfile -t heavy-engine:0.1.0 .
FROM lmsysorg/sglang:v0.5.23

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# The same Python as the control plane: Ray asks for that on every node.
COPY --from=ghcr.io/astral-sh/uv:0.11 /uv /usr/local/bin/uv
ENV UV_PYTHON_INSTALL_DIR=/opt/python
RUN uv venv --python 3.11 /opt/heavy

WORKDIR /opt/heavy-source
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN uv pip install --no-cache --python /opt/heavy/bin/python --requirement requirements.lock
COPY heavy heavy
COPY workers workers
RUN uv pip install --no-cache --python /opt/heavy/bin/python --no-build-isolation --no-deps .

# Where profiles that name no serve.engine_python find SGLang: the base image's own interpreter.
ENV HEAVY_SGLANG_PYTHON=/usr/bin/python3 \
    PATH=/opt/heavy/bin:$PATH \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_worker_niceness=0
WORKDIR /root
CMD ["bash", "-c", "exec ray start --address \"$RAY_HEAD\" --block"]
