"""The handlers of the RPCs, a module for each concern."""
