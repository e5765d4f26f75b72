# syntax=docker/dockerfile:1
# Two stages: the wheel and everything it needs go into a virtual environment, and only that goes on.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY inbox ./inbox
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/inbox \
    && pip --python /opt/inbox/bin/python install --no-cache-dir --only-binary :all: \
        "$(echo /wheels/inbox-*.whl)[deflate64]" \
    && /opt/inbox/bin/inbox --help > /dev/null

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="inbox" \
      org.opencontainers.image.description="Drop a ZIP into a folder; get one database row per file, and a receipt." \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 inbox \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin inbox \
    && install --directory --owner 10001 --group 10001 /shared
COPY --from=build /opt/inbox /opt/inbox
ENV PATH=/opt/inbox/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STORAGE_BASE_PATH=/shared
USER 10001:10001
WORKDIR /shared
VOLUME /shared
EXPOSE 8080
STOPSIGNAL SIGTERM
# The probes listen on loopback unless HTTP_HOST says otherwise. http.client: urllib would ask a proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('HTTP_PORT') or 8080), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["inbox"]
CMD ["run"]
