"""Who may use the cluster, and how much of it."""
