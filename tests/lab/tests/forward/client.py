"""What an engineer's tool does through a lane: client.py WHAT [NUMBER]; the address comes from the environment."""

import hashlib
import os
import random
import socket
import sys
import time

HERE = (os.environ["THINLANE_ASSET_ADDRESS"], int(os.environ["THINLANE_ASSET_PORT"]))


def connect(line=b""):
    sock = socket.create_connection(HERE, timeout=60)
    sock.sendall(line)
    return sock


def read_all(sock):
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


def transfer(megabytes):
    size, numbers = megabytes * 1_000_000, random.Random("up")
    data = numbers.randbytes(size)
    begun = time.monotonic()
    with connect(b"sink %d\n" % size) as sock:
        sock.sendall(data)
        assert read_all(sock).decode().strip() == hashlib.sha256(data).hexdigest(), "what was sent is not what arrived"
    up = time.monotonic() - begun
    begun = time.monotonic()
    with connect(b"source %d down\n" % size) as sock:
        got = read_all(sock)
    numbers, expected = random.Random("down"), hashlib.sha256()
    for left in range(size, 0, -65536):
        expected.update(numbers.randbytes(min(left, 65536)))
    assert hashlib.sha256(got).digest() == expected.digest(), "what came is not what was sent"
    print(f"up {megabytes / up:.1f} MB/s, down {megabytes / (time.monotonic() - begun):.1f} MB/s")


def many(count):
    socks = [connect(b"echo\n") for _ in range(count)]
    for number, sock in enumerate(socks):
        sock.sendall(b"%05d" % number * 50)
    for number, sock in enumerate(socks):
        got = b""
        while len(got) < 250:
            got += sock.recv(250 - len(got))
        assert got == b"%05d" % number * 50, number
    if count == 200:
        is_reset(lambda: connect(b"echo\n").recv(1))
        socks.pop().close()
        # The place is free as soon as both ends have said goodbye.
        for attempt in range(50):
            try:
                with connect(b"echo\nx") as sock:
                    if sock.recv(1) == b"x":
                        break
            except ConnectionError:
                time.sleep(0.1)
        else:
            raise AssertionError("the place of a closed connection was not given to another")
    print("all", count)


def half(_):
    with connect(b"echo\n") as sock:
        data = os.urandom(300_000)
        sock.sendall(data[:100])
        assert sock.recv(100, socket.MSG_WAITALL) == data[:100]
        sock.sendall(data[100:])
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == data[100:], "what was on its way was lost"
    print("half")


def is_reset(act):
    try:
        got = act()
    except ConnectionError:
        return
    raise AssertionError(f"not reset: {got!r}")


def reset(_):
    is_reset(lambda: connect(b"reset\n").recv(1))
    # An orderly end is none.
    with connect(b"nothing\n") as sock:
        assert sock.recv(1) == b""
    print("reset")


def refused(_):
    is_reset(lambda: connect().recv(1))
    print("refused")


def deaf(_):
    with connect(b"deaf\n") as sock:
        sock.setblocking(False)
        sent, quiet = 0, time.monotonic()
        while time.monotonic() - quiet < 2:
            try:
                sent += sock.send(bytes(65536))
                quiet = time.monotonic()
            except BlockingIOError:
                time.sleep(0.05)
    assert sent < 40_000_000, f"{sent} bytes went nowhere"
    print("deaf", sent)


def hold(_):
    with connect(b"echo\nx") as sock:
        assert sock.recv(1) == b"x"
        print("held", flush=True)
        is_reset(lambda: sock.recv(1))
    print(f"reset at {time.time() * 1000:.0f}", flush=True)


def udp(_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect(HERE)
        for size in (1, 500, 1200, 1400, 6000):
            data = os.urandom(size)
            # The first long answer tells the device the lane's MTU and is lost by it (path MTU discovery).
            for attempt in range(3):
                sock.send(data)
                try:
                    assert sock.recv(65535) == data, size
                    break
                except TimeoutError:
                    pass
            else:
                raise AssertionError(f"{size} bytes do not come back")
    print("udp")


def modbus(_):
    from pymodbus.client import ModbusTcpClient

    client = ModbusTcpClient(HERE[0], port=HERE[1], timeout=5)
    assert client.connect()
    for _ in range(50):
        assert client.read_holding_registers(0, 4, slave=1).registers == [100, 101, 102, 103]
    client.close()
    print("modbus")


globals()[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) > 2 else 0)
