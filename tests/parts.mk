# What tests need beyond the lock file, from Debian's packages: a Redis 7 server beside the Valkey of the wheel,
# a Prometheus for the boards and alerts, and a Chromium for the web page.
REDIS7 := $(HEAVY_CACHE_DIR)/redis/redis-server
PROMETHEUS := $(HEAVY_CACHE_DIR)/prometheus/prometheus
CHROMIUM := $(HEAVY_CACHE_DIR)/chromium/chromium
# Official MCP servers, from PyPI and npm.
MCP := $(HEAVY_CACHE_DIR)/mcp/everything

.PHONY: test-parts
test-parts: $(REDIS7) $(PROMETHEUS) $(CHROMIUM) $(MCP) ## Fetch what tests need beyond the lock file (Redis 7, Prometheus, Chromium, MCP servers), once

$(REDIS7):
	tests/debian.sh $(@D) usr/bin/redis-server@7 redis-server

$(PROMETHEUS):
	tests/debian.sh $(@D) usr/bin/promtool,usr/bin/prometheus prometheus

$(CHROMIUM):
	tests/debian.sh $(@D) usr/lib/chromium/chromium chromium fonts-dejavu-core

$(MCP):
	tests/mcp.sh $(@D) $(PYTHON)
