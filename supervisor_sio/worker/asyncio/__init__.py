"""The worker's runtime on asyncio."""
