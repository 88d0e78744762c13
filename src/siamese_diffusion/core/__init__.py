"""What every other package stands on: errors, files, settings, seeds."""
