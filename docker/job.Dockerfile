# Airflow, Java, Spark and torch: what runs the stages, as Spark's driver or as its worker. Build from the project's folder:
#   docker build --file docker/job.Dockerfile --tag mindcensus/job:0.1.0 .
FROM python:3.11.14-slim-bookworm

ENV AIRFLOW_HOME=/opt/airflow \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYSPARK_DRIVER_PYTHON=/usr/local/bin/python \
    PYSPARK_PYTHON=/usr/local/bin/python \
    PYTHONUNBUFFERED=1 \
    SPARK_HOME=/usr/local/lib/python3.11/site-packages/pyspark

# procps: Spark's scripts ask `ps`. Debian's security fixes are wanted, so Java's patch release is not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mindcensus
COPY requirements.lock ./
# torch first, with what it brings: pip's own configuration decides between a CPU and a CUDA build.
RUN pip install torch==2.13.0 \
    && pip install --no-deps --requirement requirements.lock \
    && useradd --uid 50000 --gid 0 --create-home --home-dir "$AIRFLOW_HOME" airflow \
    && install --directory --owner 50000 --mode 0750 /data/lake /data/landing "$AIRFLOW_HOME/logs"

COPY pyproject.toml README.md LICENSE ./
COPY expectations ./expectations
COPY model ./model
COPY jobs ./jobs
COPY dags ./dags
COPY docker/health.py docker/pools.json ./docker/
RUN pip install --no-deps --no-build-isolation --editable .

USER 50000
CMD ["mindcensus", "doctor"]
