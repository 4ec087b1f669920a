"""What does in a guest as a test asks, over a serial line: run by systemd as root, standard library alone.

Given to a boot by the kernel's command line, as two of systemd's credentials (``board.py``): an image has none of it.
Each line either way is a JSON object. Asked: ``{"id", "run": command, "in": text}``, ``{"id", "end": true}``; told:
``{"hello": …}``, ``{"taken": bytes read so far}``, ``{"id", "line"}``, ``{"id", "status"}``.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import tty

LINE = sys.argv[1]


def main() -> None:
    line = os.open(LINE, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    telling = threading.Lock()
    running = {}

    def tell(**words: object) -> None:
        text = json.dumps(words).encode() + b"\n"
        with telling:
            while text:
                text = text[os.write(line, text):]

    def run(number: int, command: str, given: str) -> None:
        try:
            process = subprocess.Popen(["/bin/bash", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
            running[number] = process
            threading.Thread(target=feed, args=(process, given), daemon=True).start()
            for one in process.stdout:
                tell(id=number, line=one.rstrip("\n"))
            tell(id=number, status=process.wait())
        except OSError as error:
            tell(id=number, line=str(error))
            tell(id=number, status=126)
        running.pop(number, None)

    def feed(process: "subprocess.Popen[str]", given: str) -> None:
        try:
            process.stdin.write(given)
            process.stdin.close()
        except BrokenPipeError:
            pass

    tell(hello=os.uname().nodename)
    with os.fdopen(line, "rb", buffering=0, closefd=False) as asked:
        rest, taken = b"", 0
        while part := asked.read(4096):
            taken += len(part)
            tell(taken=taken)
            *lines, rest = (rest + part).split(b"\n")
            for words in map(json.loads, lines):
                if "run" in words:
                    threading.Thread(target=run, args=(words["id"], words["run"], words["in"]), daemon=True).start()
                elif process := running.get(words["id"]):
                    os.killpg(process.pid, signal.SIGKILL)


main()
