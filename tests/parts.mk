# What tests need beyond the lock file: a Redis 7 server, beside the Valkey of the wheel.
REDIS7 := $(HEAVY_CACHE_DIR)/redis/redis-server

.PHONY: test-parts
test-parts: $(REDIS7) ## Fetch what tests need beyond the lock file (a Redis 7 server), once

$(REDIS7):
	tests/redis7.sh $@
