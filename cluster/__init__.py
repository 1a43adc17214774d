"""What replicas share: configuration and the operator's command line."""
