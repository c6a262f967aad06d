"""A substation and its control centre by somebody else's IEC 60870-5-104: iec104.py serve ADDRESS PORT, or iec104.py ask."""

import os
import sys
import time

import c104

STATION, MEASURED, SWITCH = 47, 11, 12


def serve(address, port):
    server = c104.Server(ip=address, port=int(port))
    station = server.add_station(common_address=STATION)
    station.add_point(io_address=MEASURED, type=c104.Type.M_ME_NC_1).value = 12.5
    switch = station.add_point(io_address=SWITCH, type=c104.Type.C_SC_NA_1)

    def switched(
        point: c104.Point, previous_info: c104.Information, message: c104.IncomingMessage
    ) -> c104.ResponseState:
        return c104.ResponseState.SUCCESS

    switch.on_receive(callable=switched)
    server.start()
    while True:
        time.sleep(1)


def ask():
    client = c104.Client()
    connection = client.add_connection(
        ip=os.environ["THINLANE_ASSET_ADDRESS"], port=int(os.environ["THINLANE_ASSET_PORT"]), init=c104.Init.NONE
    )
    station = connection.add_station(common_address=STATION)
    measured = station.add_point(io_address=MEASURED, type=c104.Type.M_ME_NC_1)
    switch = station.add_point(io_address=SWITCH, type=c104.Type.C_SC_NA_1)
    client.start()
    end = time.monotonic() + 20
    # Open and no longer muted: the substation has confirmed that data may flow.
    while connection.state != c104.ConnectionState.OPEN:
        assert time.monotonic() < end, f"no connection: {connection.state}"
        time.sleep(0.05)
    for _ in range(10):
        assert connection.interrogation(common_address=STATION), "the interrogation was not answered"
    assert measured.value == 12.5, measured.value
    switch.value = True
    assert switch.transmit(cause=c104.Cot.ACTIVATION), "the command was not confirmed"
    client.stop()
    print("iec104")


globals()[sys.argv[1]](*sys.argv[2:])
