# Abacus: train, export and measure the small model. Its environment and its run live under HEAVY_CACHE_DIR.
ABACUS_LOCK := workers/abacus/requirements.lock
ABACUS_ENV := $(HEAVY_CACHE_DIR)/envs/abacus-$(shell sha256sum $(ABACUS_LOCK) | cut -c1-12)
ABACUS_RUN ?= $(HEAVY_CACHE_DIR)/abacus/run
ABACUS_BASE_MINUTES ?= 35
ABACUS_ROLL_MINUTES ?= 4
ABACUS_AGGREGATE_MINUTES ?= 27
ABACUS_PRACTICE_MINUTES ?= 22
ABACUS_LOOPS_MINUTES ?= 7
ABACUS_FINISH_MINUTES ?= 27
ABACUS_THREADS ?= 1
ABACUS_PLAN ?= chains:4:500 totals:5:500 stories:3:500 programs:4:500 pairs:2:500 remainders:3:500 unseen:3:500
ABACUS_PYTHON := OMP_NUM_THREADS=$(ABACUS_THREADS) $(ABACUS_ENV)/bin/python
ABACUS_TOKENIZER := $(ABACUS_RUN)/tokenizer

.PHONY: abacus-env abacus-train abacus-export abacus-eval abacus-service-eval abacus-compare abacus-card

abacus-env: $(ABACUS_ENV)/.ready ## Build the environment that trains and exports Abacus (once; 2 GB)

$(ABACUS_ENV)/.ready: $(ABACUS_LOCK)
	$(PYTHON) -m venv $(ABACUS_ENV)
	$(ABACUS_ENV)/bin/pip install --quiet --disable-pip-version-check $$(grep '^torch==' $(ABACUS_LOCK))
	$(ABACUS_ENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $(ABACUS_LOCK)
	@touch $@

abacus-train: abacus-env ## Train Abacus: base, its own trajectories, aggregation, practice of loops, finish (resumes)
	test -f $(ABACUS_RUN)/base.pt || $(ABACUS_PYTHON) -m workers.abacus.train base \
		--directory $(ABACUS_RUN) --minutes $(ABACUS_BASE_MINUTES) --decay 0.1 --threads $(ABACUS_THREADS)
	test -f $(ABACUS_RUN)/rollouts.jsonl || $(ABACUS_PYTHON) -m workers.abacus.roll $(ABACUS_RUN)/base.pt \
		--tokenizer $(ABACUS_TOKENIZER) --target $(ABACUS_RUN)/rollouts.jsonl \
		--minutes $(ABACUS_ROLL_MINUTES) --threads $(ABACUS_THREADS)
	test -f $(ABACUS_RUN)/aggregate.pt || $(ABACUS_PYTHON) -m workers.abacus.train aggregate \
		--directory $(ABACUS_RUN) --rollouts $(ABACUS_RUN)/rollouts.jsonl \
		--minutes $(ABACUS_AGGREGATE_MINUTES) --decay 0.35 --threads $(ABACUS_THREADS)
	test -f $(ABACUS_RUN)/practice.pt || $(ABACUS_PYTHON) -m workers.abacus.train practice \
		--directory $(ABACUS_RUN) --rollouts $(ABACUS_RUN)/rollouts.jsonl --share 0.2 --peak 0.8 \
		--minutes $(ABACUS_PRACTICE_MINUTES) --decay 0.01 --threads $(ABACUS_THREADS)
	test -f $(ABACUS_RUN)/practice/int4/openvino_model.bin || $(ABACUS_PYTHON) -m workers.abacus.export \
		$(ABACUS_RUN)/practice.pt --tokenizer $(ABACUS_TOKENIZER) --target $(ABACUS_RUN)/practice
	test -f $(ABACUS_RUN)/loops.jsonl || $(ABACUS_PYTHON) -m workers.abacus.roll $(ABACUS_RUN)/practice/int4 \
		--tokenizer $(ABACUS_TOKENIZER) --target $(ABACUS_RUN)/loops.jsonl --families programs \
		--minutes $(ABACUS_LOOPS_MINUTES) --seed 2 --threads $(ABACUS_THREADS)
	$(ABACUS_PYTHON) -m workers.abacus.train finish --directory $(ABACUS_RUN) \
		--rollouts $(ABACUS_RUN)/rollouts.jsonl $(ABACUS_RUN)/loops.jsonl --share 0.25 --peak 0.8 --int4 \
		--minutes $(ABACUS_FINISH_MINUTES) --decay 0.6 --threads $(ABACUS_THREADS)

abacus-export: abacus-env ## Export the trained checkpoint to workers/abacus/weights (bf16 and INT4)
	$(ABACUS_PYTHON) -m workers.abacus.export $(ABACUS_RUN)/finish.pt \
		--tokenizer $(ABACUS_TOKENIZER) --target workers/abacus/weights

abacus-eval: abacus-env ## Measure the shipped INT4 weights offline on test problems (ABACUS_PLAN=family:level:problems)
	$(ABACUS_PYTHON) -m workers.abacus.evaluate --int4 workers/abacus/weights/int4 --split test \
		--rows $(ABACUS_RUN)/test-int4.jsonl --threads $(ABACUS_THREADS) --plan $(ABACUS_PLAN)

abacus-service-eval: $(READY) ## Measure Abacus through a whole Heavy: single, greedy, vote, heavy (resumes; ABACUS_PLAN)
	$(BIN)/python -m workers.abacus.service --split test --directory $(ABACUS_RUN)/service --plan $(ABACUS_PLAN)

abacus-compare: abacus-env ## INT4 against bf16 on the same problems, by chain length
	$(ABACUS_PYTHON) -m workers.abacus.compare workers/abacus/weights --threads $(ABACUS_THREADS)

abacus-card: abacus-env ## Draw the loss curve of the model card
	$(ABACUS_PYTHON) -m workers.abacus.card $(ABACUS_RUN)/loss.csv docs/abacus/loss.svg
