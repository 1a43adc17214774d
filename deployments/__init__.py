"""The processes of the Ray Serve application."""
