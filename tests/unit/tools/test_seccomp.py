"""The filter as the kernel would run it: every jump lands, every listed call is refused, others pass."""

from __future__ import annotations

import struct

import pytest

from heavy.tools.sandbox import seccomp

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
READ = {"x86_64": 0, "aarch64": 63}
CLONE = {"x86_64": 56, "aarch64": 220}
SOCKET = {"x86_64": 41, "aarch64": 198}


def verdict(program: bytes, arch: int, number: int, argument: int = 0, second: int = 0) -> int:
    """Interpret a classic BPF program over one struct seccomp_data."""
    data = struct.pack("=IIQ6Q", number, arch, 0, argument, second, 0, 0, 0, 0)
    operations = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    for _ in range(len(operations)):
        code, if_true, if_false, operand = operations[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x45:
                at += if_true if accumulator & operand else if_false
            case 0x06:
                return int(operand)
    raise AssertionError("the program does not end")


@pytest.mark.parametrize("machine", seccomp.SUPPORTED)
def test_listed_calls_are_refused_and_others_pass(machine: str) -> None:
    program = seccomp.program(machine)
    column = list(ARCH).index(machine)
    for name, numbers in seccomp._DENIED.items():
        number = numbers[column]
        if number is not None:
            assert verdict(program, ARCH[machine], number) == ERRNO | 1, name
    assert verdict(program, ARCH[machine], READ[machine]) == ALLOW
    assert verdict(program, ARCH[machine], 435) == ERRNO | 38


@pytest.mark.parametrize("machine", seccomp.SUPPORTED)
def test_clone_makes_threads_only_and_sockets_are_local_only(machine: str) -> None:
    program = seccomp.program(machine)
    assert verdict(program, ARCH[machine], CLONE[machine], 0x3D0F00) == ALLOW
    assert verdict(program, ARCH[machine], CLONE[machine], 17) == ERRNO | 1
    assert verdict(program, ARCH[machine], CLONE[machine], 0x10000000) == ERRNO | 1
    for number in (SOCKET[machine], SOCKET[machine] + (12 if machine == "x86_64" else 1)):
        assert verdict(program, ARCH[machine], number, 1) == ALLOW
        for family in (2, 10, 16, 17):
            assert verdict(program, ARCH[machine], number, family) == ERRNO | 97


@pytest.mark.parametrize("machine", seccomp.SUPPORTED)
def test_the_process_that_keeps_the_sandbox_is_not_to_be_signalled(machine: str) -> None:
    program, column = seccomp.program(machine), list(ARCH).index(machine)
    for name, numbers in seccomp._NOT_OF_THE_FIRST.items():
        assert verdict(program, ARCH[machine], numbers[column], 1) == ERRNO | 1, name
        for other in (0, 2, 0xFFFFFFFF):
            assert verdict(program, ARCH[machine], numbers[column], other) == ALLOW, name


@pytest.mark.parametrize("machine", seccomp.SUPPORTED)
def test_a_process_makes_itself_undumpable_for_good(machine: str) -> None:
    program = seccomp.program(machine)
    number = {"x86_64": 157, "aarch64": 167}[machine]
    assert verdict(program, ARCH[machine], number, 4, 0) == ALLOW
    for dumpable in (1, 2, 0xFFFFFFFF):
        assert verdict(program, ARCH[machine], number, 4, dumpable) == ERRNO | 1
    assert verdict(program, ARCH[machine], number, 15, 1) == ALLOW


def test_calls_of_another_architecture_and_the_x32_numbers_are_deadly() -> None:
    program = seccomp.program("x86_64")
    assert verdict(program, 0x40000003, READ["x86_64"]) == KILL
    assert verdict(program, ARCH["x86_64"], 0x40000000 | 165) == KILL
    assert verdict(seccomp.program("aarch64"), ARCH["x86_64"], 0) == KILL


@pytest.mark.parametrize("machine", seccomp.SUPPORTED)
def test_the_program_fits_the_kernel_and_the_pipe_it_travels_in(machine: str) -> None:
    size = len(seccomp.program(machine))
    assert size % 8 == 0
    assert size // 8 <= 4096
    assert size <= 4096 * 8 < 65536
