#!/bin/sh
# Installs R and its survey package from Debian, for benchmarks.estimates: run as root.
set -eu
apt-get update
apt-get install --yes --no-install-recommends r-base-core r-cran-survey r-cran-mass
