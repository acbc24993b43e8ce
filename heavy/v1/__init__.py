"""Generated from protos/heavy/v1 by `make proto`."""
