# What tests need beyond the lock file, from Debian's packages: a Redis 7 server beside the Valkey of the wheel,
# and a Prometheus for the boards and alerts.
REDIS7 := $(HEAVY_CACHE_DIR)/redis/redis-server
PROMETHEUS := $(HEAVY_CACHE_DIR)/prometheus/prometheus

.PHONY: test-parts
test-parts: $(REDIS7) $(PROMETHEUS) ## Fetch what tests need beyond the lock file (Redis 7, Prometheus), once

$(REDIS7):
	tests/debian.sh $(@D) usr/bin/redis-server@7 redis-server

$(PROMETHEUS):
	tests/debian.sh $(@D) usr/bin/promtool,usr/bin/prometheus prometheus
