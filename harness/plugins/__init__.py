"""Plugins: the hooks that they implement, their discovery, and the checks around every call into one."""
