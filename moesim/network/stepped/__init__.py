"""The engine that takes steps within a tolerance, and the limits that it proves of its own error."""
