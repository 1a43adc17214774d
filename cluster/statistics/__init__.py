"""Statistics that replicas share: integer counts by tenant and epoch, merged in Redis."""
