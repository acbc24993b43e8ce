# The control plane: coordinator, runners, Ray head, the command, and the OpenVINO and simulated engines.
# Build from the repository's root:  docker build -f deploy/images/control.Dockerfile -t heavy-control:0.1.0 .
FROM python:3.11-slim-trixie

# What the wheels need of the system: bubblewrap comes as a wheel, OpenVINO wants OpenMP's runtime.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 heavy

WORKDIR /opt/heavy
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --requirement requirements.lock
COPY heavy heavy
COPY workers workers
RUN pip install --no-cache-dir --no-build-isolation --no-deps .

COPY deploy/images/serve.sh /usr/local/bin/heavy-serve
USER 10001
WORKDIR /home/heavy
ENV HEAVY_HOST=0.0.0.0 \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_worker_niceness=0
EXPOSE 50051 8080
ENTRYPOINT ["tini", "--"]
CMD ["heavy-serve"]
