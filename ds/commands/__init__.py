"""The commands of `ds`, grouped by what they are about; each module adds its own to the application."""
