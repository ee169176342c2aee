# One image for every process of tpstream: `docker run tpstream bridge`, `… worker --roles process`, …
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.txt pyproject.toml setup.cfg README.md ./
COPY tpstream tpstream
COPY agents agents
COPY tables tables
COPY connectors connectors
# Exactly the versions that were tested; what only tests need stays out.
RUN python -m venv /opt/tpstream \
 && /opt/tpstream/bin/pip install --no-cache-dir --disable-pip-version-check -c requirements.txt .

FROM python:3.11-slim
RUN useradd --uid 10001 --home-dir /var/lib/tpstream --create-home --shell /usr/sbin/nologin tpstream
COPY --from=build /opt/tpstream /opt/tpstream
COPY deploy/healthy.py /opt/healthy.py
ENV PATH=/opt/tpstream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TPSTREAM_HOST=0.0.0.0 \
    TPSTREAM_DATA_DIR=/var/lib/tpstream
USER tpstream
WORKDIR /var/lib/tpstream
VOLUME /var/lib/tpstream
ENTRYPOINT ["tpstream"]
CMD ["--help"]
