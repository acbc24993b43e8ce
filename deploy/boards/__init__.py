"""Grafana boards and Prometheus alerts, written from the metric names in the code: `make dashboards`."""
