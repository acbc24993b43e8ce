"""The run store on Redis or Valkey: logs, leases, budgets, control, and who serves. See `heavy.store.api`."""
