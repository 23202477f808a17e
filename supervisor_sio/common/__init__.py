"""What the processes share, and what none of them owns. Imports nothing of ours above it."""
