# The judge of a puzzle's answer. The answer runs in a child, which has no network where unshare works,
# bounds on time, memory, processes and files, and nothing to write to but a pipe for one value. The
# predicate runs in a second child under the same bounds, on that value alone, so that an answer cannot
# reach what judges it.
import ast, ctypes, json, os, resource, select, signal, sys, time

task = json.load(sys.stdin)
end = time.monotonic() + task["seconds"]


def alone():
    """Take the network away from this process; whether that worked."""
    try:
        return ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) == 0  # CLONE_NEWUSER | CLONE_NEWNET
    except AttributeError:
        return False


def bound():
    alone()
    for what, most in ((resource.RLIMIT_CPU, task["seconds"]), (resource.RLIMIT_AS, task["bytes"]),
                       (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 16), (resource.RLIMIT_NPROC, 0)):
        resource.setrlimit(what, (most, most))
    null = os.open(os.devnull, os.O_RDWR)
    for f in (0, 1, 2):
        os.dup2(null, f)


def apart(work):
    """What work() returns, as text, from a child; None when it fails, says too much or takes too long."""
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.close(r)
            bound()
            os.write(w, work().encode())
        finally:
            os._exit(0)
    os.close(w)
    said = b""
    while len(said) <= 1 << 20:
        if not select.select([r], [], [], max(0, end - time.monotonic()))[0]:
            said = None
            break
        piece = os.read(r, 1 << 16)
        if not piece:
            break
        said += piece
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except OSError:
            pass
    os.waitpid(child, 0)
    return said.decode("utf-8", "replace") if said and len(said) <= 1 << 20 else None


def solve():
    space = {}
    exec("from typing import *\n" + task["answer"], space)
    return repr(space["sol"]()) + "."


def check():
    space = {}
    exec("from typing import *\n" + task["sat"], space)
    return "yes" if space["sat"](ast.literal_eval(answer[:-1])) is True else "no"


if task.get("probe"):
    print("alone" if alone() else "not alone")
    sys.exit()
if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
answer = apart(solve)
print("right" if answer and answer.endswith(".") and apart(check) == "yes" else "wrong")
