"""The server: one process that answers requests with a loaded model, and stores new events of users."""
