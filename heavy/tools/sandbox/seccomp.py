"""The system call filter of the sandbox: a classic BPF program, assembled here.

Layout of what it reads, and the meaning of every constant: linux/seccomp.h, linux/filter.h, linux/audit.h
and each architecture's unistd.h. The filter lets everything pass that is not listed, because python and
its numeric libraries use most of the rest; namespaces, rlimits and dropped capabilities are the walls,
this takes away the tools to climb them, and the sources of memory that no rlimit counts.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Final

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_IF_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_NUMBER_AT: Final = 0  # offsets in struct seccomp_data
_ARCH_AT: Final = 4
_ARGUMENT_0_AT: Final = 16  # its low half: both architectures are little-endian
_ARGUMENT_1_AT: Final = 24

_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_DENY: Final = 0x00050000
_X32_BIT: Final = 0x40000000

_AF_UNIX: Final = 1
_CLONE_THREAD: Final = 0x00010000
_PR_SET_DUMPABLE: Final = 4

_DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    # name: (x86_64, aarch64); None where the architecture has no such call
    # mounts and roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "mknod": (133, None),
    "mknodat": (259, 33),
    # namespaces
    "unshare": (272, 97),
    "setns": (308, 268),
    # other processes; a new process (clone is judged by its flags below)
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # kernel machinery with a record of holes
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # the host itself
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "acct": (163, 89),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    # memory that no rlimit of a process counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}


_NOT_OF_THE_FIRST: Final[dict[str, tuple[int, int]]] = {
    # judged by the process they are about: never the namespace's first, which keeps the sandbox
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "prlimit64": (302, 261),
}


@dataclass(frozen=True, slots=True)
class _Machine:
    """What differs between architectures: AUDIT_ARCH_*, the column above, calls judged by an argument."""

    arch: int
    column: int
    clone: int
    clone3: int
    prctl: int
    sockets: tuple[int, int]


_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, 0, clone=56, clone3=435, prctl=157, sockets=(41, 53)),
    "aarch64": _Machine(0xC00000B7, 1, clone=220, clone3=435, prctl=167, sockets=(198, 199)),
}

SUPPORTED: Final = tuple(_MACHINES)
"""Machines (as `platform.machine()` calls them) for which there is a filter."""


def program(machine: str) -> bytes:
    """The filter for `machine`, as bwrap's --seccomp reads it. Raises KeyError for an unsupported one."""
    this = _MACHINES[machine]
    instructions = [
        _op(_LOAD, _ARCH_AT),
        *_unless_equal(this.arch, _KILL),
        _op(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":  # the x32 variant of every call has other numbers
        instructions += [_op(_IF_AT_LEAST, _X32_BIT, 0, 1), _op(_RETURN, _KILL)]
    for numbers in _DENIED.values():
        number = numbers[this.column]
        if number is not None:
            instructions += _if_number(number, [_op(_RETURN, _DENY | errno.EPERM)])
    for numbers in _NOT_OF_THE_FIRST.values():
        instructions += _if_number(numbers[this.column], _other_than_the_first())
    # Its flags are in memory, where a filter cannot look; without it libc falls back to clone.
    instructions += _if_number(this.clone3, [_op(_RETURN, _DENY | errno.ENOSYS)])
    instructions += _if_number(this.clone, _threads_only())
    instructions += _if_number(this.prctl, _never_dumpable())
    for number in this.sockets:
        instructions += _if_number(number, _local_sockets_only())
    instructions.append(_op(_RETURN, _ALLOW))
    return b"".join(instructions)


def _other_than_the_first() -> list[bytes]:
    return [
        _op(_LOAD, _ARGUMENT_0_AT),
        *_if_number(1, [_op(_RETURN, _DENY | errno.EPERM)]),
        _op(_RETURN, _ALLOW),
    ]


def _threads_only() -> list[bytes]:
    return [
        _op(_LOAD, _ARGUMENT_0_AT),
        _op(_IF_ANY_BIT, _CLONE_THREAD, 1, 0),
        _op(_RETURN, _DENY | errno.EPERM),
        _op(_RETURN, _ALLOW),
    ]


def _never_dumpable() -> list[bytes]:
    return [
        _op(_LOAD, _ARGUMENT_0_AT),
        *_if_number(_PR_SET_DUMPABLE, [_op(_LOAD, _ARGUMENT_1_AT), *_unless_equal(0, _DENY | errno.EPERM)]),
        _op(_RETURN, _ALLOW),
    ]


def _local_sockets_only() -> list[bytes]:
    return [
        _op(_LOAD, _ARGUMENT_0_AT),
        *_unless_equal(_AF_UNIX, _DENY | errno.EAFNOSUPPORT),
        _op(_RETURN, _ALLOW),
    ]


def _op(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter; jumps are counted in instructions from the next one on."""
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def _if_number(number: int, then: list[bytes]) -> list[bytes]:
    return [_op(_IF_EQUAL, number, 0, len(then)), *then]


def _unless_equal(value: int, verdict: int) -> list[bytes]:
    return [_op(_IF_EQUAL, value, 1, 0), _op(_RETURN, verdict)]
