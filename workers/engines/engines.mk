# Environments of engines that must not share the control plane's. Kept under HEAVY_CACHE_DIR between runs.
.PHONY: sglang-env

sglang-env: $(READY) ## Build SGLang's CPU environment in the cache (once; 3.5 GB)
	$(BIN)/python -m workers.engines.sglang.environment build

test: sglang-env
