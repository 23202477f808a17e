import socketio
from fastapi import FastAPI
from supervisor_sio import AsyncZmqManager

api = FastAPI()
sio = socketio.AsyncServer(async_mode="asgi", client_manager=AsyncZmqManager())
app = socketio.ASGIApp(sio, api)


@sio.event
async def message(sid, data):
    await sio.emit("message", data)


@api.get("/")
async def index():
    return {"status": "up"}
