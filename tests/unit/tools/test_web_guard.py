"""What may be visited: every way to write or reach an address that is no public server is refused."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import subprocess
import sys

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from heavy.tools.sandbox import jail
from heavy.tools.web.addresses import is_own, why_not_public
from heavy.tools.web.guard import AddressRefused, CheckedResolver, Refused, Rules

RULES = Rules(block_hosts=("answers.example",), allow_private=("intranet.example.org:8080", "127.0.0.1:9000"))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
        *("168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255"),
        *(
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
        ),
        *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254"),
        *("::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254"),
        *("64:ff9b:1::8.8.8.8", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1"),
        *(
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
        ),
        *(
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "fe80::1%eth0",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ),
        *("", "localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "1.2.3", "1.2.3.4.5"),
    ],
)
def test_what_is_no_public_server_is_refused_with_a_reason(address: str) -> None:
    assert why_not_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700:4700::1111"),
        *("2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
    ],
)
def test_public_servers_are_not(address: str) -> None:
    assert why_not_public(address) == ""


@given(st.integers(0, 2**32 - 1))
def test_nothing_the_standard_library_calls_private_passes(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert why_not_public(str(address))
        assert why_not_public(f"::ffff:{address}")
        assert why_not_public(f"64:ff9b::{address}")


@given(st.integers(0, 2**128 - 1))
def test_nor_does_anything_of_that_kind_in_ipv6(number: int) -> None:
    address = ipaddress.IPv6Address(number)
    if not address.is_global or address.is_multicast:
        assert why_not_public(str(address))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.org/x", "Only http and https"),
        ("file:///etc/passwd", "Only http and https"),
        ("gopher://example.org", "Only http and https"),
        ("data:text/html,x", "Only http and https"),
        ("example.org/page", "Only http and https"),
        ("http:///x", "names no host"),
        ("http://user:secret@example.org/", "user name or password"),
        ("http://user@example.org/", "user name or password"),
        ("http://example.org@127.0.0.1/", "user name or password"),
        ("http://:secret@example.org/", "user name or password"),
        ("http://example.org\\@127.0.0.1/", "not a URL"),
        ("http://example.org:22/", "Port 22"),
        ("http://example.org:6379/", "Port 6379"),
        ("https://example.org:99999/", "not a URL"),
        ("http://127.0.0.1/", "loopback"),
        ("http://127.1/", "neither a host name nor"),
        ("http://2130706433/", "neither a host name nor"),
        ("http://0x7f000001/", "neither a host name nor"),
        ("http://0177.0.0.1/", "neither a host name nor"),
        ("http://127.0.0.0x1/", "neither a host name nor"),
        ("http://017700000001/", "neither a host name nor"),
        ("http://127.0.0.1./", "loopback"),
        ("http://①②⑦.⓪.⓪.①/", "loopback"),
        ("http://127。0。0。1/", "loopback"),
        ("http://169.254.169.254/latest/meta-data/", "metadata"),
        ("http://[::1]/", "not global"),
        ("http://[::ffff:127.0.0.1]/", "loopback"),
        ("http://[::ffff:a9fe:a9fe]/", "metadata"),
        ("http://[64:ff9b::7f00:1]/", "loopback"),
        ("http://[2002:7f00:1::]/", "6to4"),
        ("http://[fe80::1%25eth0]/", "not a host name"),
        ("http://[fd00:ec2::254]/", "not global"),
        ("http://localhost/", "local network"),
        ("http://LOCALHOST./", "local network"),
        ("http://redis/", "local network"),
        ("http://metadata.google.internal/", "local network"),
        ("http://printer.local/", "local network"),
        ("http://app.localhost/", "local network"),
        ("http://exa%6dple.org/", "not a host name"),
        ("http://exa mple.org/", "not a"),
        ("http://answers.example/", "blocks answers.example"),
        ("http://www.ANSWERS.example./x", "blocks www.answers.example"),
        ("http://intranet.example.org:8081/", "Port 8081"),
        ("http://127.0.0.1:9001/", "Port 9001"),
        ("http://example.org/" + "x" * 5_000, "longer than"),
    ],
)
def test_a_url_that_must_not_be_visited_is_refused_with_a_reason(url: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        RULES.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a?b=c#d",
        "http://example.org:443/",
        "https://notanswers.example/",
        "http://8.8.8.8/",
        "http://[2606:4700:4700::1111]/",
        "http://intranet.example.org:8080/",
        "http://127.0.0.1:9000/x",
        "http://bücher.example/",
    ],
)
def test_other_urls_are_not(url: str) -> None:
    checked = RULES.check(url)
    assert checked.fragment == ""
    assert checked.scheme in ("http", "https")


@given(st.text(max_size=60))
def test_whatever_is_no_url_is_refused_and_nothing_else_happens(text: str) -> None:
    try:
        url = RULES.check("http://" + text)
    except Refused:
        return
    host = url.raw_host or ""
    literal = ":" in host or host.replace(".", "").isdigit()
    assert not (literal and why_not_public(host)) or f"{host}:{url.port}" in RULES.allow_private


class Answers(AbstractResolver):
    """A name server that gives one set of answers after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = self._answers.pop(0)
        return [
            ResolveResult(hostname=host, host=one, port=port, family=socket.AF_INET, proto=0, flags=0)
            for one in addresses
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_this_machines_addresses_are_known_however_they_are_written(address: str) -> None:
    assert is_own(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "192.0.2.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_other_machines_addresses_are_not(address: str) -> None:
    assert not is_own(address)


async def test_this_machines_own_public_address_is_no_public_server() -> None:
    """In a network namespace of its own, whose loopback interface has a public address."""
    give_address = """
import fcntl, socket, struct
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
public = struct.pack("16sH2s4s8s", b"lo:1", socket.AF_INET, b"", socket.inet_aton("8.8.4.4"), b"")
fcntl.ioctl(control, 0x8916, public)  # SIOCSIFADDR
from heavy.tools.web.addresses import why_refused
print([why_refused(one) for one in ("8.8.4.4", "::ffff:8.8.4.4", "1.1.1.1")])
"""
    privileges = ("--unshare-user", "--unshare-net", "--uid", "0", "--gid", "0", "--cap-add", "CAP_NET_ADMIN")
    command = [jail._bwrap(), *privileges, "--dev-bind", "/", "/", "--", sys.executable, "-c", give_address]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[\"this machine's own\", \"this machine's own\", '']\n", done.stderr


async def test_a_name_is_refused_when_any_of_its_addresses_is_not_public() -> None:
    resolver = CheckedResolver(RULES, Answers(["8.8.8.8"], ["8.8.8.8", "10.0.0.1"], ["::1"]))
    found = await resolver.resolve("example.org", 443)
    assert [one["host"] for one in found] == ["8.8.8.8"]
    for _ in range(2):
        with pytest.raises(AddressRefused, match=r"example\.org leads to"):
            await resolver.resolve("example.org", 443)


async def test_a_server_the_operator_allows_may_be_anywhere_but_only_on_its_port() -> None:
    resolver = CheckedResolver(RULES, Answers(["10.0.0.1"], ["10.0.0.1"]))
    assert await resolver.resolve("intranet.example.org", 8080)
    with pytest.raises(AddressRefused):
        await resolver.resolve("intranet.example.org", 443)
