"""The Kubernetes family: several clusters, over the API server, without kubectl."""
