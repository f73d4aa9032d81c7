"""Somebody's backend in a few lines, and what others get wrong in theirs: one thing each."""

import asyncio
import json
from typing import Any, Self

from commserver.reference.frames import FRAMINGS

TOKEN = "SERVER_TOKEN"
USER_TOKEN, ACCOUNT = "ada's", "12"


class Peer:
    """One connection that was dialled to it."""

    def __init__(self, writer: asyncio.StreamWriter, framing: str) -> None:
        self.writer = writer
        self.framing = FRAMINGS[framing]()

    def say(self, packet: object) -> None:
        self.raw(json.dumps(packet).encode())

    def raw(self, frame: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(self.framing.send(frame))

    def hang_up(self) -> None:
        self.writer.close()


class SmallBackend:
    """A backend that does everything right.

    peers: whoever is connected. links: those of them that have shown the token.
    """

    framing = "lines"

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.links: list[Peer] = []
        self.port = 0
        self._handed_in = 41
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def die(self) -> None:
        """Crash, as far as anybody can see."""
        self._server.close()
        for peer in self.peers:
            peer.hang_up()

    async def hand_in(self) -> None:
        """Have a student hand something in."""
        self._handed_in += 1
        if self.links:
            self.push(self.links[-1], str(self._handed_in))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer, self.framing)
        task = asyncio.current_task()
        assert task
        self._tasks.append(task)
        self.peers.append(peer)
        self.dialled(peer)
        try:
            while data := await self.read(reader):
                self.chunk(data, peer)
        except OSError:
            self.reset()
        finally:
            self.peers.remove(peer)
            self.links = [link for link in self.links if link is not peer]
            writer.close()

    # -- what others do otherwise -----------------------------------------------------------------

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.read(1 << 16)

    def dialled(self, peer: Peer) -> None:
        pass

    def reset(self) -> None:
        pass

    def chunk(self, data: bytes, peer: Peer) -> None:
        for frame in peer.framing.receive(data):
            self.told(json.loads(frame), peer)

    def told(self, packet: dict[str, Any], peer: Peer) -> None:
        command = packet.get("cmd")
        if command == "HANDSHAKE":
            self.handshake(packet, peer)
        elif command in ("EXECUTED", "ERROR"):
            self.final(packet, peer)
        elif command == "AUTHENTICATE_CLIENT":
            self.lookup(packet, peer)

    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        if packet["TOKEN"] == TOKEN:
            peer.say(packet)
            self.links.append(peer)

    def push(self, link: Peer, id: str) -> None:
        link.say({"cmd": "EXERCISE", "id": id, "ack": True})

    def final(self, packet: dict[str, Any], peer: Peer) -> None:
        peer.say({"cmd": "ACK", "seq": packet["seq"]})

    def lookup(self, packet: dict[str, Any], peer: Peer) -> None:
        client = ACCOUNT if packet["TOKEN"] == USER_TOKEN else "-1"
        number = packet["authentication_id"]
        peer.say({"cmd": "AUTHENTICATED_CLIENT", "authentication_id": number, "client_id": client})


class Silent(SmallBackend):
    """Right too: answers no HANDSHAKE, knows no ack and no lookups, as the first platform."""

    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        if packet["TOKEN"] == TOKEN:
            self.links.append(peer)

    def push(self, link: Peer, id: str) -> None:
        link.say({"cmd": "EXERCISE", "id": int(id)})

    def final(self, packet: dict[str, Any], peer: Peer) -> None:
        raise AssertionError

    def lookup(self, packet: dict[str, Any], peer: Peer) -> None:
        pass


class KryoNet(SmallBackend):
    """Right too: frames as KryoNet's, its own messages among them."""

    framing = "length"

    def dialled(self, peer: Peer) -> None:
        peer.say({"class": "com.esotericsoftware.kryonet.FrameworkMessage$RegisterTCP"})
        peer.raw(b"\x01\x02")


# -- what is wrong --------------------------------------------------------------------------------


class HangsUpAfterTheHandshake(SmallBackend):
    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        peer.say(packet)
        peer.hang_up()


class RefusesEverybody(SmallBackend):
    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        peer.say({"cmd": "ERROR", "message": "no"})


class TakesAChunkForAFrame(SmallBackend):
    def chunk(self, data: bytes, peer: Peer) -> None:
        if data.endswith(b"\n") and data.startswith(b"{"):
            super().chunk(data, peer)


class TakesAChunkForAFrameInSilence(Silent):
    def chunk(self, data: bytes, peer: Peer) -> None:
        if data.endswith(b"\n") and data.startswith(b"{"):
            super().chunk(data, peer)


class SaysAnObjectForAnId(SmallBackend):
    def push(self, link: Peer, id: str) -> None:
        link.say({"cmd": "EXERCISE", "id": {"id": id}, "ack": True})


class SaysNoId(SmallBackend):
    def push(self, link: Peer, id: str) -> None:
        link.say({"cmd": "EXERCISE", "exercise": id, "ack": True})


class PushesNothing(SmallBackend):
    def push(self, link: Peer, id: str) -> None:
        pass


class PutsTwoObjectsIntoAFrame(SmallBackend):
    def push(self, link: Peer, id: str) -> None:
        packet = json.dumps({"cmd": "EXERCISE", "id": id, "ack": True}).encode()
        link.raw(packet + packet)


class PutsTwoObjectsIntoAFrameOfKryoNet(KryoNet):
    def push(self, link: Peer, id: str) -> None:
        packet = json.dumps({"cmd": "EXERCISE", "id": id, "ack": True}).encode()
        link.raw(packet + packet)


class SendsFramesWithoutEnd(SmallBackend):
    def push(self, link: Peer, id: str) -> None:
        link.say({"cmd": "EXERCISE", "id": id, "ack": True, "code": "x" * (1 << 20)})


class PushesToStrangers(SmallBackend):
    async def hand_in(self) -> None:
        for peer in self.peers:
            self.push(peer, "42")


class PushesToWhoeverDials(SmallBackend):
    async def hand_in(self) -> None:
        if self.peers:
            self.push(self.peers[0], "42")


class PushesAfterAnyHandshake(SmallBackend):
    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        super().handshake(packet, peer)
        if packet["TOKEN"] != TOKEN:
            self.links.append(peer)


class CrashesOnAWrongToken(SmallBackend):
    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        if packet["TOKEN"] != TOKEN:
            self.die()
        super().handshake(packet, peer)


class WelcomesAWrongToken(SmallBackend):
    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        if packet["TOKEN"] != TOKEN:
            peer.say(packet)
        super().handshake(packet, peer)


class HasOneLink(SmallBackend):
    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        for link in self.links:
            link.hang_up()
        super().handshake(packet, peer)


class CrashesOnAnUnknownCommand(SmallBackend):
    def told(self, packet: dict[str, Any], peer: Peer) -> None:
        if packet.get("cmd") == "CONFORMANCE":
            self.die()
        super().told(packet, peer)


class HangsUpOnUnknownFields(SmallBackend):
    def told(self, packet: dict[str, Any], peer: Peer) -> None:
        if packet.get("cmd") == "HANDSHAKE" and packet.keys() != {"cmd", "TOKEN"}:
            peer.hang_up()
        else:
            super().told(packet, peer)


class IgnoresAHandshakeWithMore(SmallBackend):
    def handshake(self, packet: dict[str, Any], peer: Peer) -> None:
        if packet.keys() == {"cmd", "TOKEN"}:
            super().handshake(packet, peer)


class LosesALinkOnAnUnknownCommand(SmallBackend):
    def told(self, packet: dict[str, Any], peer: Peer) -> None:
        if packet.get("cmd") == "CONFORMANCE":
            self.links.remove(peer)
        super().told(packet, peer)


class HangsUpOnAKeepAlive(KryoNet):
    def told(self, packet: dict[str, Any], peer: Peer) -> None:
        if "cmd" not in packet:
            peer.hang_up()
        super().told(packet, peer)


class HangsUpWhenIdle(SmallBackend):
    async def read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(1.0):
                return await super().read(reader)
        except TimeoutError:
            return b""


class PushesNoMoreAfterAReset(SmallBackend):
    was_reset = False

    def reset(self) -> None:
        self.was_reset = True

    def push(self, link: Peer, id: str) -> None:
        if not self.was_reset:
            super().push(link, id)


class NeverAcknowledges(SmallBackend):
    def final(self, packet: dict[str, Any], peer: Peer) -> None:
        pass


class AcknowledgesOnce(SmallBackend):
    acknowledged = False

    def final(self, packet: dict[str, Any], peer: Peer) -> None:
        if not self.acknowledged:
            super().final(packet, peer)
        self.acknowledged = True


class CrashesOnAReplay(SmallBackend):
    acknowledged = False

    def final(self, packet: dict[str, Any], peer: Peer) -> None:
        if self.acknowledged:
            self.die()
        super().final(packet, peer)
        self.acknowledged = True


class AnswersAnotherLookup(SmallBackend):
    def lookup(self, packet: dict[str, Any], peer: Peer) -> None:
        super().lookup({**packet, "authentication_id": "1"}, peer)


class KnowsEveryToken(SmallBackend):
    def lookup(self, packet: dict[str, Any], peer: Peer) -> None:
        super().lookup({**packet, "TOKEN": USER_TOKEN}, peer)


class KnowsNoToken(SmallBackend):
    def lookup(self, packet: dict[str, Any], peer: Peer) -> None:
        super().lookup({**packet, "TOKEN": ""}, peer)


class HangsUpOnALookup(SmallBackend):
    def lookup(self, packet: dict[str, Any], peer: Peer) -> None:
        peer.hang_up()


RIGHT: tuple[type[SmallBackend], ...] = (SmallBackend, Silent, KryoNet)

WRONG: dict[type[SmallBackend], str] = {  # and the one rule that each breaks
    HangsUpAfterTheHandshake: "handshake",
    RefusesEverybody: "handshake",
    TakesAChunkForAFrame: "pieces",
    TakesAChunkForAFrameInSilence: "pieces",
    SaysAnObjectForAnId: "exercise",
    SaysNoId: "exercise",
    PushesNothing: "exercise",
    PutsTwoObjectsIntoAFrame: "frames",
    PutsTwoObjectsIntoAFrameOfKryoNet: "frames",
    SendsFramesWithoutEnd: "frames",
    PushesToStrangers: "stranger",
    PushesToWhoeverDials: "stranger",
    PushesAfterAnyHandshake: "stranger",
    CrashesOnAWrongToken: "stranger",
    WelcomesAWrongToken: "refusal",
    HasOneLink: "several",
    CrashesOnAnUnknownCommand: "unknown",
    HangsUpOnUnknownFields: "unknown",
    IgnoresAHandshakeWithMore: "unknown",
    LosesALinkOnAnUnknownCommand: "unknown",
    HangsUpOnAKeepAlive: "keepalive",
    HangsUpWhenIdle: "idle",
    PushesNoMoreAfterAReset: "reconnect",
    NeverAcknowledges: "ack",
    AcknowledgesOnce: "ack",
    CrashesOnAReplay: "ack",
    AnswersAnotherLookup: "lookup",
    KnowsEveryToken: "lookup",
    KnowsNoToken: "lookup",
    HangsUpOnALookup: "lookup",
}
