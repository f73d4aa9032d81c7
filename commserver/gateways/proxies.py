"""Whose connection it is, seen through the proxies that we trust. Sans-I/O."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from commserver.errors import ConfigError

Address = IPv4Address | IPv6Address
SITE = 64  # bits of an IPv6 address that are one customer's: who has one has all of them


class Proxies:
    """Reads `X-Forwarded-For`, which counts only as far as a trusted proxy has written it."""

    def __init__(self, trusted: Sequence[str], key: str = "trusted_proxies") -> None:
        """Trust these addresses and networks; `key` is what the configuration calls them.

        Raises:
            ConfigError: one is neither.
        """
        networks: list[IPv4Network | IPv6Network] = []
        problems = []
        for one in trusted:
            try:
                networks.append(ip_network(one))
            except ValueError as error:
                problems.append(f"{key}: {error}")
        if problems:
            raise ConfigError(problems)
        self._trusted = tuple(networks)

    def client(self, peer: str, forwarded: Iterable[str] = ()) -> str:
        """Return the address of whoever is behind a connection from `peer`.

        forwarded: the values of the X-Forwarded-For headers, in their order. Each proxy appends
        whom it was called by, so they are read from the right, up to the first that no trusted
        proxy vouches for. What is no address ends it: then it is the proxy that wrote it.
        """
        client = _address(peer)
        if client is None:
            return peer
        hops = [hop for value in forwarded for hop in value.split(",")]
        while hops and self._trusts(client):
            hop = _address(hops.pop())
            if hop is None:
                break
            client = hop
        return str(client)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def neighbourhood(address: str) -> str:
    """Return what failures are counted by: an IPv4 address, the /64 of an IPv6 one."""
    parsed = _address(address)
    if not isinstance(parsed, IPv6Address):
        return address
    return str(ip_network((int(parsed), SITE), strict=False))


def _address(text: str) -> Address | None:
    """Return the address in `text`, which may have a port; None when there is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
