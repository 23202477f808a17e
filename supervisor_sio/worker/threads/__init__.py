"""The threading mode: connections in the loop of asyncio, the application in threads of a pool."""
