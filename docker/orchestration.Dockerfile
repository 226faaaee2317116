# Airflow without the work: API server, DAG processor and triggerer. Build from the project's folder:
#   docker build --file docker/orchestration.Dockerfile --tag mindcensus/orchestration:0.1.0 .
FROM python:3.11.14-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV AIRFLOW_HOME=/opt/airflow \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/mindcensus
COPY requirements.lock ./
# Neither Spark nor the libraries of the stages: a DAG's file needs none of them.
RUN grep -vE '^(altair|duckdb|great-expectations|pandas|petastorm|pyarrow|pyreadstat|pyspark|scipy|vl-convert-python)==' \
        requirements.lock > /tmp/airflow.lock \
    && pip install --no-deps --requirement /tmp/airflow.lock \
    && rm /tmp/airflow.lock \
    && useradd --uid 50000 --gid 0 --create-home --home-dir "$AIRFLOW_HOME" airflow \
    && install --directory --owner 50000 --mode 0750 "$AIRFLOW_HOME/logs" "$AIRFLOW_HOME/users"

COPY dags ./dags
COPY docker/health.py docker/pools.json ./docker/

USER 50000
CMD ["airflow", "version"]
