# no_splice.py PROGRAM ARGS...: runs the program where splice(2) is refused, as filters of system calls in
# containers refuse it (seccomp(2), a program of classic BPF in front of every call).
import ctypes, os, platform, struct, sys

SPLICE = {"x86_64": 275, "aarch64": 76}.get(platform.machine())
if SPLICE is None:
    sys.exit(f"the number of splice(2) on {platform.machine()} is not known here")
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
EPERM = 0x00050001  # SECCOMP_RET_ERRNO
ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW


def step(code, yes, no, value):
    return struct.pack("=HBBI", code, yes, no, value)


# Load the call's number; if it is splice's, refuse; allow the others.
steps = [step(0x20, 0, 0, 0), step(0x15, 0, 1, SPLICE), step(0x06, 0, 0, EPERM), step(0x06, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(steps))


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


program = Program(len(steps), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
for call in [
    (PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0),
    (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
]:
    if libc.prctl(*call) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
