"""The WebSocket server that students' browsers dial (protocol page `commserver`)."""
