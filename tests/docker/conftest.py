"""The scripts of docker/ find one another in their own folder."""

import sys
from pathlib import Path

DOCKER = Path(__file__).resolve().parents[2] / "docker"
sys.path.insert(0, str(DOCKER))
