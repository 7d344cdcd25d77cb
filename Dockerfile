# One image for every process: exporter worker, exporter api, exporter tick, exporter migrate.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# uv trusts what the base image trusts, such as the certificate of a company's proxy.
ENV UV_SYSTEM_CERTS=true
WORKDIR /src
COPY requirements/ requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && uv venv /opt/exporter \
    && uv pip install --python /opt/exporter --no-cache --require-hashes -r requirements/runtime.txt
COPY pyproject.toml LICENSE README.md ./
COPY docs/ docs/
COPY streaming_exporter/ streaming_exporter/
COPY stream_app/ stream_app/
COPY producers/ producers/
COPY api/ api/
RUN hatchling build -t wheel \
    && (cd streaming_exporter && hatchling build -t wheel -d ../dist) \
    && uv pip install --python /opt/exporter --no-cache --no-deps --compile-bytecode dist/*.whl

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --no-create-home exporter
COPY --from=build /opt/exporter /opt/exporter
# No process imports modules from the folder that it stands in.
ENV PATH=/opt/exporter/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
USER 10001:10001
WORKDIR /
EXPOSE 8000
CMD ["exporter", "worker"]
