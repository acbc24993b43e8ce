"""A coordinator process: everything it is made of, put together in one place.

    python -m heavy.app

Reads `HEAVY_*` settings and `RAY_ADDRESS`; serves until SIGTERM or SIGINT, then ends its runs and itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from heavy.aggregation.equivalence import Equivalence
from heavy.config import Settings
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.errors import ConfigError, HeavyError
from heavy.gateway.app import Gateway
from heavy.profiles.loader import load_profiles
from heavy.rpc.server import RpcServer
from heavy.runner import ray_adapter
from heavy.store.redis import connect
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing
from heavy.tools.names import TOOL_NAMES

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: the settings cannot work."""
