"""The way in: commands become entries of logs."""
