"""The monitoring family: metrics and alerts of Prometheus and Alertmanager, dashboards of Grafana."""
